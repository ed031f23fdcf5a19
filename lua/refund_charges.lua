--[[
  Takes back what a decision with a request id has charged, or settles it at another cost; at most once.

  A cost that has become higher takes what is left of the limit at the most: nothing is ever in use beyond it.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
    2n+1           the record of the request id
  ARGV:
    1              entries of a log before it becomes a ring
    then three for each charge: limit, window (milliseconds; of a calendar, its period as in decide_charges), and the
                   units that stay charged; below 0: the charge is left as it is, for another call
  Returns:
    the units given back for each charge: 0 where nothing was charged, it has left the window, the state is another one
    since (a change of the algorithm among it), or, in a ring, the charge was merged into a later one that is now the
    oldest; below 0 where more was charged; an empty list if the request id is unknown or has been refunded or settled
]]
-- @include server_clock
-- @include sliding_window_rewriting
-- @include token_bucket
-- @include calendar

-- Exactly these units, of those charged at `time` after `base`, leave the window's log; none if they have left already,
-- or if the log is another one since (a reset, a clock that went back).
local function refund_window(value, key, pages_key, span, units, tag, base, time)
  local refunded = 0
  local now_base = struct.unpack('>I7', value, 2)
  local last = tag % 4 == 1 and struct.unpack('>I6', value, #value - 9) or struct.unpack('>I5', value, #value - 6)
  -- Nor if the clock has gone back since and the log was not moved back yet: base + last would be in the future.
  if now_base ~= base or base + time <= now - span or base + last > now then
    return 0
  end
  rewrite_window(value, key, pages_key, now, span, tag % 4, 0, function(times, totals, count)
    local before = 0
    for index = 1, count do
      if times[index] >= time then
        -- The oldest entry, if it is a later one, may be what others were charged: in a log, this charge has left it
        -- under a window that was shorter for a while; in a ring it may be merged here, which can't be seen.
        if index == 1 and times[1] > time then
          return count
        end
        refunded = units
        local kept = index - 1
        for later = index, count do
          local total = totals[later] - units
          if later > index or total > before then
            kept = kept + 1
            times[kept], totals[kept] = times[later], total
          end
        end
        return kept
      end
      before = totals[index]
    end
    return count
  end)
  return refunded
end

-- These units of the cost leave the bucket, but for what has drained of them: what stays charged drains first.
local function refund_bucket(value, key, limit, span, units, cost, born, at)
  local level, _, _, state, _, _, _, now_born = weigh_bucket(nil, value, nil, nil, now, limit, span, 0, 0)
  if level == 0 or now_born ~= born then
    return 0
  end
  local credit = math.min(level, units, cost - (now - at) * limit / span)
  if credit <= 0 then
    return 0
  end
  local _, _, _, lower, _, life = weigh_bucket(nil, state, nil, nil, now, limit, span, -credit, 0)
  redis.call('SET', key, lower, 'PX', life)
  return math.floor(credit)
end

-- These units leave the count of the period, if that goes on.
local function refund_calendar(value, key, limit, period, units, tag, from, till)
  local used, _, _, _, _, _, now_tag, now_from, now_till = weigh_calendar(
    nil, value, nil, nil, now, limit, period, 0)
  if now_tag ~= tag or not ((from > 0 and from == now_from) or (till > 0 and till == now_till)) then
    return 0
  end
  units = math.min(units, used)
  redis.call('SET', key, struct.pack('>BI4I4I4', tag, now_from, now_till, used - units), 'KEEPTTL')
  return units
end

local count, entries = (#KEYS - 1) / 2, tonumber(ARGV[1])
local packed = redis.call('GET', KEYS[#KEYS])
local record = packed and cmsgpack.unpack(packed)
if not record or record[3] then
  return {}
end

local refunded, all = {}, true
for index = 1, count do
  local key, pages_key = KEYS[index], KEYS[count + index]
  local limit, span, cost = tonumber(ARGV[index * 3 - 1]), ARGV[index * 3] * 1000, tonumber(ARGV[index * 3 + 1])
  local charged, tag, base, time = unpack(record[2][index])
  local value = charged > 0 and redis.call('MGET', key)[1]
  refunded[index] = 0
  if cost < 0 then
    charged, cost, value, all = 0, 0, nil, false
  else
    record[2][index] = { 0 }
  end
  if charged > 0 and cost > charged then
    -- @include charging_more
    local more = cost - charged
    if tag % 4 == 3 then
      more = value and math.min(more, limit - struct.unpack('>I4', value, 10)) or 0
      refunded[index] = value and more > 0 and refund_calendar(
        value, key, limit, span / 1000, -more, tag, base, time) or 0
    else
      refunded[index] = -charge_more(value, key, count + index, limit, span, more, tag)
    end
  elseif not value or string.byte(value) ~= tag or cost == charged then
    -- Nothing was charged, the state is another one since, or the cost is the same.
  elseif tag % 4 == 3 then
    refunded[index] = refund_calendar(value, key, limit, span / 1000, charged - cost, tag, base, time)
  elseif tag % 4 == 2 then
    refunded[index] = refund_bucket(value, key, limit, span, charged - cost, charged, base, time)
  else
    refunded[index] = refund_window(value, key, pages_key, span, charged - cost, tag, base, time)
  end
end
redis.call('SET', KEYS[#KEYS], cmsgpack.pack({ record[1], record[2], all }), 'KEEPTTL')
return refunded

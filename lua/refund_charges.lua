--[[
  Takes back what a decision with a request id has charged; at most once.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
    2n+1           the record of the request id
  ARGV:
    two for each charge, as in decide_charges: limit, window (milliseconds)
  Returns:
    the units given back for each charge: 0 where nothing was charged, it has left the window, the state is another one
    since (a change of the algorithm among it), or, in a ring, the charge was merged into a later one that is now the
    oldest; an empty list if the request id is unknown or has been refunded
]]
-- @include server_clock
-- @include sliding_window_page
-- @include sliding_window_rewriting
-- @include token_bucket

-- Exactly the units that were charged at `time` after `base` leave the window's log; none if they have left already, or
-- if the log is another one since (a reset, a clock that went back).
local function refund_window(value, key, pages_key, span, cost, tag, base, time)
  local refunded = 0
  local _, now_base, _, _, _, last = struct.unpack(tag % 4 == 1 and '>BI7I4BI2I6' or '>BI7I4BI2I5', value)
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
        refunded = cost
        local kept = index - 1
        for later = index, count do
          local units = totals[later] - cost
          if later > index or units > before then
            kept = kept + 1
            times[kept], totals[kept] = times[later], units
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

-- What has not drained since it was charged leaves the bucket.
local function refund_bucket(value, key, limit, span, cost, born, at)
  local level, _, _, state, _, _, now_born = weigh_bucket(value, now, limit, span, 0)
  if level == 0 or now_born ~= born then
    return 0
  end
  local credit = math.min(level, cost - (now - at) * limit / span)
  if credit <= 0 then
    return 0
  end
  local _, _, _, lower, _, _, _, _, keep = weigh_bucket(state, now, limit, span, -credit)
  redis.call('SET', key, lower, 'PX', keep)
  return math.floor(credit)
end

local count = (#KEYS - 1) / 2
local packed = redis.call('GET', KEYS[#KEYS])
local record = packed and cmsgpack.unpack(packed)
if not record or record[3] then
  return {}
end

local refunded = {}
for index = 1, count do
  local key, pages_key = KEYS[index], KEYS[count + index]
  local limit, span = tonumber(ARGV[index * 2 - 1]), ARGV[index * 2] * 1000
  local charged, tag, base, time = unpack(record[2][index])
  local value = charged > 0 and redis.call('MGET', key)[1]
  refunded[index] = 0
  if not value or string.byte(value) ~= tag then
    -- Nothing was charged, or the state is another one since.
  elseif tag % 4 == 2 then
    refunded[index] = refund_bucket(value, key, limit, span, charged, base, time)
  else
    refunded[index] = refund_window(value, key, pages_key, span, charged, tag, base, time)
  end
end
redis.call('SET', KEYS[#KEYS], cmsgpack.pack({ record[1], record[2], true }), 'KEEPTTL')
return refunded

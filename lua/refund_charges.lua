--[[
  Takes back what a decision with a request id has charged; at most once.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
    2n+1           the record of the request id
  ARGV:
    three for each charge, as in decide_charges: algorithm, limit, window (milliseconds)
  Returns:
    the units given back for each charge: 0 where nothing was charged, it has left the window, or the state is another
    one since; an empty list if the request id is unknown or has been refunded
]]
-- @include server_clock
-- @include sliding_window
-- @include token_bucket

-- Exactly the units that were charged at `time` after `base` leave the window's log; none if they have left already, or
-- if the log is another one since (a reset, a clock that went back).
local function refund_window(key, pages_key, now, limit, window_ms, cost, tag, base, time)
  local rewriting = sliding_window_rewriting()
  local weigh = sliding_window()
  local log, used = weigh(redis.call('GET', key), pages_key, now, limit, window_ms * 1000, 1)
  if used == 0 or log.tag ~= tag or log.base ~= base or time < log.first_at then
    return 0
  end
  local entries, entry, bytes = rewriting.body(pages_key, log)
  local count, index = #entries / bytes, 1
  while index < count and struct.unpack(entry, entries, 1 + (index - 1) * bytes) < time do
    index = index + 1
  end
  local before, modulus = log.start, tag % 2 == 1 and 4294967296 or 65536
  if index > 1 then
    local _
    _, before = struct.unpack(entry, entries, 1 + (index - 2) * bytes)
  end
  local parts = { string.sub(entries, 1, (index - 1) * bytes) }
  for each = index, count do
    local at, total = struct.unpack(entry, entries, 1 + (each - 1) * bytes)
    total = (total - cost) % modulus
    if each > index or total ~= before then
      parts[#parts + 1] = struct.pack(entry, at, total)
    end
  end
  if used == cost then
    redis.call('UNLINK', key)
  else
    rewriting.store_all(key, pages_key, log, table.concat(parts), window_ms + 1000)
  end
  return cost
end

-- What has not drained since it was charged leaves the bucket.
local function refund_bucket(key, now, limit, window_ms, cost, born, at)
  local weigh, _, store = token_bucket()
  local bucket, level = weigh(redis.call('GET', key), nil, now, limit, window_ms * 1000, 1)
  if level == 0 or bucket.born ~= born then
    return 0
  end
  local credit = math.min(level, math.max(0, cost - (now - at) * limit / (window_ms * 1000)))
  bucket.level, bucket.at = level - credit, now
  store(key, bucket, limit, window_ms * 1000)
  return math.floor(credit)
end

local count = (#KEYS - 1) / 2
local packed = redis.call('GET', KEYS[#KEYS])
local record = packed and cmsgpack.unpack(packed)
if not record or record[3] then
  return {}
end

local now, refunded = server_now(), {}
for index = 1, count do
  local arg, key, pages_key = index * 3 - 2, KEYS[index], KEYS[count + index]
  local limit, window_ms = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local charged, tag, base, time = unpack(record[2][index])
  refunded[index] = 0
  if charged > 0 and ARGV[arg] == '0' then
    refunded[index] = refund_window(key, pages_key, now, limit, window_ms, charged, tag, base, time)
  elseif charged > 0 then
    refunded[index] = refund_bucket(key, now, limit, window_ms, charged, base, time)
  end
end
redis.call('SET', KEYS[#KEYS], cmsgpack.pack({ record[1], record[2], true }), 'KEEPTTL')
return refunded

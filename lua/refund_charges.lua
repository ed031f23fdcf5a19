--[[
  Takes back what a decision with a request id has charged; at most once.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
    2n+1           the record of the request id
  ARGV:
    three for each charge, as in decide_charges: algorithm, limit, span (microseconds)
  Returns:
    the units given back for each charge: 0 where nothing was charged, it has left the window, or the state is another
    one since; an empty list if the request id is unknown or has been refunded
]]
-- @include server_clock
-- @include sliding_window
-- @include token_bucket

local count = (#KEYS - 1) / 2
local packed = redis.call('GET', KEYS[#KEYS])
local record = packed and cmsgpack.unpack(packed)
if not record or record[3] then
  return {}
end

local now, refunded = server_now(), {}
for index = 1, count do
  local arg = index * 3 - 2
  local charged, edition, base, at = unpack(record[2][index])
  refunded[index] = 0
  if charged > 0 then
    local key, pages_key = KEYS[index], KEYS[count + index]
    local limit, span, value = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), redis.call('GET', key)
    if ARGV[arg] == '0' then
      local log = window_weigh(value, pages_key, now, limit, span)
      refunded[index] = window_refund(key, pages_key, log, charged, edition, base, at)
    else
      refunded[index] = bucket_refund(key, bucket_weigh(value, now, limit, span), charged, base, at)
    end
  end
end
redis.call('SET', KEYS[#KEYS], cmsgpack.pack({ record[1], record[2], true }), 'KEEPTTL')
return refunded

--[[
  The log in a sorted set, as most libraries have it: one member a request, trimmed, counted, added, expired.

  KEYS: 1 the set
  ARGV: 1 limit (units), 2 window (microseconds), 3 the same (milliseconds), 4 a unique member
  Returns: allowed (1 or 0), remaining, microseconds until the oldest leaves, microseconds until a request fits
]]
local time = redis.call('TIME')
local now, limit, window = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local used = redis.call('ZCARD', KEYS[1])
local allowed = used < limit
if allowed then
  redis.call('ZADD', KEYS[1], now, ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  used = used + 1
end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local reset = oldest[2] + window - now
return { allowed and 1 or 0, limit - used, reset, allowed and 0 or reset }

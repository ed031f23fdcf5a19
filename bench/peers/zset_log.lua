--[[
  The log in a sorted set, as most libraries have it: one member a request, trimmed, counted, added, expired.

  KEYS: 1 the set
  ARGV: 1 limit (units), 2 window (microseconds), 3 a unique member
  Returns: allowed (1 or 0), remaining, microseconds until the oldest leaves
]]
local time = redis.call('TIME')
local now, limit, window = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local used, allowed = redis.call('ZCARD', KEYS[1]), 0
if used < limit then
  redis.call('ZADD', KEYS[1], now, ARGV[3])
  redis.call('PEXPIRE', KEYS[1], window / 1000)
  used, allowed = used + 1, 1
end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return { allowed, limit - used, oldest[2] + window - now }

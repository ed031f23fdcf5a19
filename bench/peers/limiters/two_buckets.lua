--[[
  Two fixed windows, the previous one weighted by how much of it the trailing window still covers.

  KEYS: 1 the prefix of the two counters
  ARGV: 1 limit (units), 2 window (microseconds)
  Returns: allowed (1 or 0), remaining, microseconds until the current window ends
]]
local time = redis.call('TIME')
local now, limit, window = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local number = math.floor(now / window)
local current = KEYS[1] .. string.format('%.0f', number)
local counts = redis.call('MGET', current, KEYS[1] .. string.format('%.0f', number - 1))
local passed = (now % window) / window
local used = math.floor((tonumber(counts[2]) or 0) * (1 - passed)) + (tonumber(counts[1]) or 0)
if used >= limit then
  return { 0, 0, window - now % window }
end
if redis.call('INCR', current) == 1 then
  redis.call('PEXPIRE', current, 2 * window / 1000)
end
return { 1, limit - used - 1, window - now % window }

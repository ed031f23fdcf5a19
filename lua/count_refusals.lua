--[[
  Adds to the tally of refused clients, and keeps its largest entries.

  KEYS:
    KEYS[1]  the tally: a sorted set of masked clients by the number of their refusals
  ARGV:
    ARGV[1]  time to live, milliseconds
    ARGV[2]  how many clients are kept
    ARGV[3…] pairs of a number of refusals and the client
  Returns:
    how many clients there are now
]]
local tally = KEYS[1]
local ttl_ms, most = ARGV[1], tonumber(ARGV[2])

for index = 3, #ARGV, 2 do
  redis.call('ZINCRBY', tally, ARGV[index], ARGV[index + 1])
end
redis.call('ZREMRANGEBYRANK', tally, 0, -1 - most)
redis.call('PEXPIRE', tally, ttl_ms)
return redis.call('ZCARD', tally)

--[[
  Keeps what a machine remembers for the dashboard, and that there is this machine.

  KEYS:
    KEYS[1]  the machine's history
    KEYS[2]  the machines: a sorted set of names by the time of their last history
  ARGV:
    ARGV[1]  the history, packed
    ARGV[2]  the machine's name
    ARGV[3]  now, seconds since 1970
    ARGV[4]  time to live, seconds
    ARGV[5]  how many machines are kept
  Returns:
    how many machines there are
]]
local history, machines = KEYS[1], KEYS[2]
local packed, name, now, ttl, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

redis.call('SET', history, packed, 'EX', ttl)
redis.call('ZADD', machines, now, name)
redis.call('ZREMRANGEBYSCORE', machines, '-inf', now - ttl)
redis.call('ZREMRANGEBYRANK', machines, 0, -1 - most)
redis.call('EXPIRE', machines, ttl)
return redis.call('ZCARD', machines)

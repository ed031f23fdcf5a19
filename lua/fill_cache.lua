--[[
  Stores what a reader loaded, unless the key has changed since the reader looked.

  A reader that found nothing, a tombstone or a value it could not use loads from the database and comes back with
  what it saw. A writer that invalidated in the meantime has put another tombstone there: then the loaded value may
  be old, and is not stored. This is the lease of "Scaling Memcache at Facebook" (NSDI 2013, section 3.2.1).

  KEYS:
    KEYS[1]  the cache key
  ARGV:
    ARGV[1]  the first 9 bytes that the reader saw there; empty if it saw no key
    ARGV[2]  the value to store, in the form of stores/cache/values.py
    ARGV[3]  time to live, milliseconds
  Returns:
    1 if it was stored, 0 if the key had changed
]]
local key = KEYS[1]
local seen, value, ttl_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('GETRANGE', key, 0, 8) ~= seen then
  return 0
end
redis.call('SET', key, value, 'PX', ttl_ms)
return 1

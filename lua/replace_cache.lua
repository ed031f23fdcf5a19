--[[
  Puts the new value of a key in the place of the old one, if that is still there; else a tombstone.

  A writer that saw the old value, and can make the new one of it, saves the next reader from loading it. If anything
  happened at the key since the writer looked (another write, a reader's fill), the new value may be stale. Store a
  tombstone instead, so the next reader reloads. Both are new versions: a fill by a reader that looked before is refused
  from now on (fill_cache.lua).

  KEYS:
    KEYS[1]  the cache key
  ARGV:
    ARGV[1]  the first 9 bytes that the writer saw there
    ARGV[2]  the value to store, in the form of server/stores/cache/values.py
    ARGV[3]  its time to live, milliseconds
    ARGV[4]  the tombstone
    ARGV[5]  its time to live, milliseconds
  Returns:
    1 if the value was stored, 0 if the tombstone was
]]
local key = KEYS[1]
local seen, value, value_ttl_ms = ARGV[1], ARGV[2], ARGV[3]
local tombstone, tombstone_ttl_ms = ARGV[4], ARGV[5]

if redis.call('GETRANGE', key, 0, 8) ~= seen then
  redis.call('SET', key, tombstone, 'PX', tombstone_ttl_ms)
  return 0
end
redis.call('SET', key, value, 'PX', value_ttl_ms)
return 1

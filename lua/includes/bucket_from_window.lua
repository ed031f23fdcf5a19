--[[
  A sliding window's state as a bucket's: for a policy whose algorithm has been changed by a reload.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: bucket_from_window(value, key, pages_key, now, limit, span, writes) -> the bucket's state

  The log has the time of each charge: the level is what it would be had the bucket been there for all of them, but
  at most twice the limit, so that a client is clear again two windows later.
]]
-- @include sliding_window_entries

local function bucket_from_window(value, key, pages_key, now, limit, span, writes)
  local tag, base, before, last, text, entry, bytes, modulus = read_window(value, pages_key)
  local level, previous = 0, 0
  for offset = 1, #text, bytes do
    local at, charged = struct.unpack(entry, text, offset)
    level = math.max(0, level - (at - previous) * limit / span) + (charged - before) % modulus
    previous, before = at, charged
  end
  level = math.min(level, 2 * limit)
  local at = math.min(base + last, now)
  local state = struct.pack('>BdI7I7', (tag - tag % 4 + 4) % 256 + 2, level, at, at)
  if writes then
    -- @include kept_longer
    redis.call('UNLINK', pages_key)
    redis.call('SET', key, state, 'PX', math.ceil(level * span / limit / 1000) + KEPT_LONGER_MS)
  end
  return state
end

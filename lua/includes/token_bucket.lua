--[[
  The token bucket, as the generic cell rate algorithm in its leaky-bucket form (ITU-T I.371): a level that drains.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: weigh_bucket(value, now, limit, span, cost, key, pages_at, writes)

  The state: 2 + 4 * edition (1 byte, as the kind and edition of a sliding window's log), level (8 bytes, a double: the
  units in use when it was written), at (7 bytes, microseconds since 1970: when that was), born (7 bytes: when the
  bucket was last empty). The level drains by limit / span; a cost fits while level + cost <= limit. Being in units, it means the same under another limit or window. What a sliding window has
  left there before a reload is carried over.
]]

-- Weighs a charge of `cost` units against a state at `now`, in microseconds as `span`. Returns
--   the units in use, the microseconds until more whole units are free (0: all are), and until the cost fits;
--   the charge to write, whether it fits or not: the new state, the release after it, the state's life in milliseconds
--   (until it is empty), and what a refund needs (kind and edition, born, at).
local function weigh_bucket(_, value, key, pages_at, now, limit, span, cost, entries)
  local tag, level, at, born = 2, 0, now, now
  if value then
    if string.byte(value) % 4 ~= 2 then
      -- @include bucket_from_window
      value = bucket_from_window(value, key, KEYS[pages_at], now, limit, span, entries > 0)
    end
    tag, level, at, born = struct.unpack('>BdI7I7', value)
    if at > now then
      -- The server's clock has gone back: what was charged was charged just now.
      born, at = born - (at - now), now
    end
    if level > limit then
      -- The limit was higher, or what was unbilled was charged: the client is clear again two windows later.
      level = math.min(level, 2 * limit)
    end
    level = level - (now - at) * limit / span
    if level <= 0 then
      level, born = 0, now
    end
  end
  -- @include kept_longer
  local after, wait = level + cost, 0
  if after > limit then
    wait = math.max(1, math.ceil((after - limit) * span / limit))
  end
  local release = level > 0 and (level - math.min(math.ceil(level), limit + 1) + 1) * span / limit or 0
  local release_then = (after - math.min(math.ceil(after), limit + 1) + 1) * span / limit
  return level, math.ceil(release), wait, struct.pack('>BdI7I7', tag, after, now, born), math.ceil(release_then),
    math.ceil(after * span / limit / 1000) + KEPT_LONGER_MS, tag, born, now
end

--[[
  The token bucket, as the generic cell rate algorithm in its leaky-bucket form (ITU-T I.371): a level that drains.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: weigh_bucket(value, now, limit, span, cost)

  The state: level (8 bytes, a double: the units in use when it was written), at (7 bytes, microseconds since 1970: when
  that was), born (7 bytes: when the bucket was last empty). The level drains by limit / span; a cost fits
  while level + cost <= limit. Being in units, it means the same under another limit or window.
]]

-- What a state says at `now`, microseconds as `span` is, about a charge of `cost` units. Returns
--   the units in use, the microseconds until more whole units are free (0: all are), and until the cost fits;
--   the charge to write, whether it fits or not: the new state, the release after it, what a refund needs (0, born,
--   at), and the state's life in milliseconds: until it is empty, and a second more, as Redis has a coarser clock, too.
local function weigh_bucket(value, now, limit, span, cost)
  local level, at, born = 0, now, now
  if value then
    level, at, born = struct.unpack('>dI7I7', value)
    if at > now then
      -- The server's clock has gone back: what was charged was charged just now.
      born, at = born - (at - now), now
    end
    level = level - (now - at) * limit / span
    if level <= 0 then
      level, born = 0, now
    end
  end
  local after, wait = level + cost, 0
  if after > limit then
    wait = math.max(1, math.ceil((after - limit) * span / limit))
  end
  local release = level > 0 and (level - math.min(math.ceil(level), limit + 1) + 1) * span / limit or 0
  local release_then = (after - math.min(math.ceil(after), limit + 1) + 1) * span / limit
  return level, math.ceil(release), wait, struct.pack('>dI7I7', after, now, born), math.ceil(release_then),
    0, born, now, math.ceil(after * span / limit / 1000) + 1000
end

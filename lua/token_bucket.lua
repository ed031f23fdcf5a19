--[[
  The token bucket, as the generic cell rate algorithm in its leaky-bucket form (ITU-T I.371): a level that drains.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: weigh_bucket(value, now, limit, span, cost, entries, forced), pack_bucket(level, at, born, limit, span)

  The state: level (8 bytes, a double: the units in use when it was written), at (7 bytes, microseconds since 1970: when
  that was), born (7 bytes: when the bucket was last empty). The level drains by limit / span; a cost fits
  while level + cost <= limit. Being in units, it means the same under another limit or window.
]]

-- A state and its life in milliseconds: until it is empty, and a second more, as Redis expires by a coarser clock.
local function pack_bucket(level, at, born, limit, span)
  return struct.pack('>dI7I7', level, at, born), math.ceil(level * span / limit / 1000) + 1000
end

-- What a state says at `now`, microseconds as `span` is, about a charge of `cost` units. Returns
--   the units in use, the microseconds until more whole units are free (0: all are), and until the cost fits;
--   if it fits (or is `forced`) and `entries` is given, the charge to write: the new state, its life in milliseconds, the
--   release after it, and what a refund needs: 0, born, at; 0 and the cost;
--   when the bucket was last empty.
local function weigh_bucket(value, now, limit, span, cost, entries, forced)
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
  local release = 0
  if level > 0 then
    release = math.ceil((level - math.min(math.ceil(level), limit + 1) + 1) * span / limit)
  end
  if level + cost > limit and not forced then
    return level, release, math.max(1, math.ceil((level + cost - limit) * span / limit)), nil, born
  elseif not entries then
    return level, release, 0, nil, born
  end
  local after = level + cost
  local state, keep_ms = pack_bucket(after, now, born, limit, span)
  local release_after = math.ceil((after - math.min(math.ceil(after), limit + 1) + 1) * span / limit)
  return level, release, 0, { state, keep_ms, release_after, 0, born, now, 0, cost }, born
end

--[[
  The token bucket, as the generic cell rate algorithm in its leaky-bucket form (ITU-T I.371): a level that drains.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: token_bucket() -> weigh, charge, store: made when a charge needs them

  The state: level (8 bytes, a double: the units in use when it was written), at (7 bytes, microseconds since 1970: when
  that was), born (7 bytes: when the bucket was last empty). The level drains by limit / span; a cost fits
  while level + cost <= limit. Being in units, it means the same under another limit or window.
]]
local function token_bucket()
  local FORMAT = '>dI7I7'

  -- Microseconds until more whole units are free than now.
  local function release_of(level, limit, span)
    local goal = math.min(math.ceil(level), limit + 1) - 1
    return level > 0 and math.ceil((level - goal) * span / limit) or 0
  end

  -- What a state says at `now`. Returns a table for the other functions, the units in use, the microseconds until more
  -- units are free (0: all are), and until `cost` units fit.
  local function weigh(value, _, now, limit, span, cost)
    local bucket = { level = 0, at = now, born = now, shifted = false }
    if value then
      local level, at, born = struct.unpack(FORMAT, value)
      if at > now then
        born, at = born - (at - now), now
        bucket.shifted = true
      end
      level = level - (now - at) * limit / span
      if level > 0 then
        bucket.level, bucket.born = level, born
      end
    end
    local level = bucket.level
    local wait = math.max(0, math.ceil((level + cost - limit) * span / limit))
    return bucket, level, release_of(level, limit, span), wait
  end

  -- A bucket lives until it is empty, and a second more: Redis expires by a coarser clock.
  local function store(key, bucket, limit, span)
    local empty_ms = math.ceil(bucket.level * span / limit / 1000)
    redis.call('SET', key, struct.pack(FORMAT, bucket.level, bucket.at, bucket.born), 'PX', empty_ms + 1000)
  end

  -- Charges `cost` units. Returns the microseconds until more units are free, and what a refund needs: 0, born and at.
  local function charge(key, _, bucket, _, limit, span, cost)
    bucket.level = bucket.level + cost
    store(key, bucket, limit, span)
    return release_of(bucket.level, limit, span), 0, bucket.born, bucket.at
  end

  return weigh, charge, store
end

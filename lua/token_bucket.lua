--[[
  The token bucket, as the generic cell rate algorithm in its leaky-bucket form (ITU-T I.371): a level that drains.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: bucket_weigh, bucket_wait, bucket_release, bucket_charge, bucket_refresh, bucket_refund

  The value: level (8 bytes, a double: the units in use when it was written), at (7 bytes, microseconds since 1970: when
  that was), born (7 bytes: when the bucket was last empty). The level drains by limit / span; a cost fits
  while level + cost <= limit. Being in units, it means the same under another limit or window.
]]
local BUCKET = '>dI7I7'

local function bucket_weigh(value, now, limit, span)
  local bucket = { now = now, limit = limit, span = span, used = 0, born = now }
  if value then
    local level, at, born = struct.unpack(BUCKET, value)
    local elapsed = now - at
    if elapsed < 0 then
      born = born + elapsed
      elapsed = 0
      bucket.shifted = true
    end
    level = level - elapsed * limit / span
    if level > 0 then
      bucket.used, bucket.born = level, born
    end
  end
  return bucket
end

-- Microseconds until `cost` units fit; the cost is not above the limit.
local function bucket_wait(bucket, cost)
  return math.max(0, math.ceil((bucket.used + cost - bucket.limit) * bucket.span / bucket.limit))
end

-- Microseconds until more whole units are free than now, after `cost` units were charged now (0: none were).
local function bucket_release(bucket, cost)
  local level = bucket.used + cost
  local goal = math.min(math.ceil(level), bucket.limit + 1) - 1
  return level > 0 and math.ceil((level - goal) * bucket.span / bucket.limit) or 0
end

local function bucket_store(key, bucket, level)
  local empty_ms = math.ceil(level * bucket.span / bucket.limit / 1000)
  redis.call('SET', key, struct.pack(BUCKET, level, bucket.now, bucket.born), 'PX', empty_ms + 1000)
end

-- Charges `cost` units and writes the bucket. Returns what a refund needs: 0, born, now.
local function bucket_charge(key, bucket, cost)
  bucket_store(key, bucket, bucket.used + cost)
  return 0, bucket.born, bucket.now
end

-- Notes that the clock has gone back.
local function bucket_refresh(key, bucket)
  bucket_store(key, bucket, bucket.used)
end

-- Takes back `cost` units charged at `at` to the bucket `born`: what has not drained since. Returns the whole units.
local function bucket_refund(key, bucket, cost, born, at)
  if bucket.used == 0 or bucket.born ~= born then
    return 0
  end
  local credit = math.min(bucket.used, math.max(0, cost - (bucket.now - at) * bucket.limit / bucket.span))
  bucket_store(key, bucket, bucket.used - credit)
  return math.floor(credit)
end

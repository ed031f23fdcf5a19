--[[
  A bucket's state as a sliding window's: for a policy whose algorithm has been changed by a reload.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: window_from_bucket(value, key, now, limit, span, wide, writes) -> the window's state, nil if nothing is in use

  A bucket keeps no times. What has not drained by now counts as one charge, made when the bucket was charged last: what
  remains is the same before and after the change, and nothing is in use for longer than a window.
]]
local function window_from_bucket(value, key, now, limit, span, wide, writes)
  local tag, level, base = struct.unpack('>BdI7', value)
  base = math.min(base, now)
  -- As a bucket is read: at most twice the limit, then drained.
  local units, state, life, kept = math.ceil(math.min(level, 2 * limit) - (now - base) * limit / span), nil, nil, nil
  if units > 0 and now - base < span then
    -- @include sliding_window_life
    tag = (tag - 2 + 4) % 256
    if wide then
      state = struct.pack('>BI7I4I4BI2I6I4', tag + 1, base, kept, 0, 0, 0, 0, units)
    else
      state = struct.pack('>BI7I3I2BI2I5I2', tag, base, kept, 0, 0, 0, 0, units)
    end
  end
  if writes and state then
    redis.call('SET', key, state, 'PX', life)
  elseif writes then
    redis.call('UNLINK', key)
  end
  return state
end

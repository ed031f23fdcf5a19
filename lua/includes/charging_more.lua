--[[
  More units for a request that was charged before, as far as there is room for them.

  Part of: refund_charges
  Gives: charge_more(value, key, pages_key, limit, span, units, tag) -> the units charged
]]
-- @include sliding_window

-- The units are charged now, when the cost has become known. `tag` says which algorithm the first charge was made by.
local function charge_more(value, key, pages_key, limit, span, units, tag)
  local state, keep, gone, page, _ = nil, span / 1000 + 1000, nil, nil, nil
  if tag % 4 == 2 then
    units = math.min(units, math.floor(limit - weigh_bucket(value, now, limit, span, 0, key, pages_key)))
    if units > 0 then
      _, _, _, state, _, _, _, _, keep = weigh_bucket(value, now, limit, span, units, key, pages_key, true)
    end
  else
    units = math.min(units, limit - (value and weigh_window(value, key, pages_key, now, limit, span, 0, 0) or 0))
    if units > 0 then
      _, _, _, state, _, _, _, _, gone, page = weigh_window(
        value, key, pages_key, now, limit, span, units, entries)
    end
  end
  if units <= 0 then
    return 0
  end
  if gone and gone > 0 then
    redis.call('LTRIM', pages_key, gone, -1)
  end
  if page then
    redis.call('RPUSH', pages_key, page)
    redis.call('PEXPIRE', pages_key, keep)
  end
  redis.call('SET', key, state, 'PX', keep)
  return units
end

--[[
  More units for a request that was charged before, as far as there is room for them.

  Part of: refund_charges
  Gives: charge_more(value, key, pages_at, limit, span, units, tag) -> the units charged
]]
-- @include sliding_window

-- The units are charged now, when the cost has become known. `tag` says which algorithm the first charge was made by.
local function charge_more(value, key, pages_at, limit, span, units, tag)
  local weigh = tag % 4 == 2 and weigh_bucket or weigh_window
  units = math.min(units, math.floor(limit - weigh(weigh, value, key, pages_at, now, limit, span, 0, 0)))
  if units <= 0 then
    return 0
  end
  local _, _, _, state, _, life, _, _, _, gone, page, page_life = weigh(
    weigh, value, key, pages_at, now, limit, span, units, entries)
  -- @include write_charge
  return units
end

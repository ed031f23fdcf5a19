--[[
  When units leave a sliding window that is full: by search, as a charge of several units waits for several entries.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: window_leaving(units) -> microseconds from now until so many of the units in use have left

  Put into weigh_window: it starts where the oldest live entry is, and goes through the parts as is done there.
]]
local function window_leaving(units)
  local part, at, left, page, pages_left, back_left = text, position, count, gone, pages, back
  while true do
    for _ = 1, left do
      local time, charged = struct.unpack(entry, part, at)
      if (charged - start) % modulus >= units then
        return base + time + span - now
      end
      at = at + bytes
    end
    if pages_left > 0 then
      part = redis.call('LINDEX', KEYS[pages_at], page) or ''
      at, left, page, pages_left = 1, #part / bytes, page + 1, pages_left - 1
      if left > 0 then
        local _, charged = struct.unpack(entry, part, #part + 1 - bytes)
        left = (charged - start) % modulus < units and 0 or left
      end
    elseif back_left > 0 then
      part, at, left, back_left = value, #value + 1 - back_left * bytes, back_left, 0
    else
      return base + last + span - now
    end
  end
end

--[[
  All entries of a sliding window's log in one text: for what rarely happens to a log, as it reads all pages.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: read_window(value, pages_key) -> tag, base, start, as in the state; the newest entry's time; the entries,
    oldest first; an entry's format and size in bytes; the modulus of its total
]]
local function read_window(value, pages_key)
  local entry, bytes, skip, modulus = '>I5I2', 7, 16, 65536
  local tag, base, _, start, front, pages = struct.unpack('>BI7I3I2BI2', value)
  if tag % 4 == 1 then
    entry, bytes, skip, modulus = '>I6I4', 10, 19, 4294967296
    tag, base, _, start, front, pages = struct.unpack('>BI7I4I4BI2', value)
  end
  local text = string.sub(value, skip + 1)
  if pages > 0 then
    local middle = table.concat(redis.call('LRANGE', pages_key, 0, -1))
    text = string.sub(text, 1, front * bytes) .. middle .. string.sub(text, front * bytes + 1)
  end
  local last = struct.unpack(entry, text, #text + 1 - bytes)
  return tag, base, start, last, text, entry, bytes, modulus
end

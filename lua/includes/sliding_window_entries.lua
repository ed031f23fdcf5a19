--[[
  All entries of a sliding window's log in one text: for what rarely happens to a log, as it reads all pages.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: read_window(value, pages_key) -> tag, base, start and the newest entry's time, as in the state; the entries,
    oldest first, the newest among them; an entry's format and size in bytes; the modulus of its total
]]
local function read_window(value, pages_key)
  local entry, bytes, skip, modulus = '>I5I2', 7, 22, 65536
  local tag, base, start, front, pages, last, total = struct.unpack('>BI7I4BI2I5I2', value)
  if tag % 4 == 1 then
    entry, bytes, skip, modulus = '>I6I4', 10, 25, 4294967296
    tag, base, start, front, pages, last, total = struct.unpack('>BI7I4BI2I6I4', value)
  end
  local text = string.sub(value, skip + 1)
  if pages > 0 then
    local middle = table.concat(redis.call('LRANGE', pages_key, 0, -1))
    text = string.sub(text, 1, front * bytes) .. middle .. string.sub(text, front * bytes + 1)
  end
  return tag, base, start, last, text .. struct.pack(entry, last, total), entry, bytes, modulus
end

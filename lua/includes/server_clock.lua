--[[
  The server's clock. Every script that decides takes its time from here, never from a client.

  Part of: charge_unbilled, decide_charges, peek_charges, read_overrides, refund_charges, write_override
  Gives: now, microseconds since 1970, an integer of 16 digits, exact in a double.

  Never put such a number through tostring() or `..`: Lua keeps 14 digits there.
]]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

--[[
  How many entries of a long log are a page.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: PAGE

  Included where it is used, as kept_longer is.
]]
local PAGE = 16

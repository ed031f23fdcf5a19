--[[
  How much longer than it is needed a key lives, as Redis expires keys by a coarser clock than the scripts read.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: KEPT_LONGER_MS

  Included where it is used: a function that takes a local of the script with it is dearer to make.
]]
local KEPT_LONGER_MS = 1000

--[[
  Answers as a decision would now, without charging anything.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
    2n+1..2n+s     the block of each subject
  ARGV:
    1              the charges, packed as in decide_charges; a log of no entries
  Returns:
    as decide_charges
]]
local receipts

-- @include server_clock
-- @include weigh_charges

local allowed, answers = decide(decide, weigh_window, now, receipts, count, 1, 1, true)
return (allowed and '\1' or '\0') .. answers

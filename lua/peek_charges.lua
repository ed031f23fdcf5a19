--[[
  Tells what a decision would say now, without charging anything.

  KEYS:
    1..n           the state of each charge
    n+1..n+s       the block of each subject
    the last n     the pages of each charge
  ARGV:
    1, 2           unused, so that the rest is as in decide_charges
    then one for each charge, as in decide_charges
  Returns:
    as decide_charges: 1 or 0, then state, remaining, release and wait (both microseconds) for each charge
]]
local count = #ARGV - 2

-- @include server_clock
-- @include sliding_window
-- @include token_bucket
-- @include weigh_charges

return (weigh_charges(count, redis.call('MGET', unpack(KEYS, 1, #KEYS - count))))

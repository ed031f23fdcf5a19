--[[
  Tells what a decision would say now, without charging anything.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
    2n+1..2n+s     the block of each subject
  ARGV:
    1              n, the number of charges
    2, 3           unused, so that the rest is as in decide_charges
    then five for each charge, as in decide_charges: algorithm, limit, window (milliseconds), cost, subject
  Returns:
    as decide_charges: 1 or 0, then state, remaining, release and wait for each charge
]]
local count = tonumber(ARGV[1])

-- @include server_clock
-- @include sliding_window
-- @include token_bucket
-- @include weigh_charges

return (weigh_charges(redis.call('MGET', unpack(KEYS)), count))

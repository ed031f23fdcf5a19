--[[
  Answers as a decision would now, without charging anything.

  KEYS:
    1..n           the state of each charge
    n+1..n+s       the block of each subject
    the last n     the pages of each charge
  ARGV:
    1              the charges, packed as in decide_charges
  Returns:
    as decide_charges
]]
local count = string.byte(ARGV[1])
local values = redis.call('MGET', unpack(KEYS, 1, #KEYS - count))

-- @include server_clock
-- @include sliding_window
-- @include weigh_charges

local reply = allowed and '\1' or '\0'
for index = 1, count do
  reply = reply .. struct.pack('>BI4i8i8', unpack(weighed[index], 1, 4))
end
return reply

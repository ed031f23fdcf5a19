--[[
  Charges what was admitted while Redis was away, at the time it was admitted, whether it fits or not.

  At most twice the limit is ever in use, so that arrears are paid off within two windows.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
  ARGV:
    1              entries of a log before it becomes a ring
    then five for each charge:
      algorithm    0 sliding window, 1 token bucket
      limit        units
      span         the window in microseconds
      cost         units
      age          microseconds since it was admitted
  Returns:
    the number of charges of which something was charged
]]
local entries = tonumber(ARGV[1])

-- @include server_clock
-- @include sliding_window
-- @include token_bucket

local now, charged = server_now(), 0
for index = 1, #KEYS / 2 do
  local arg = index * 5 - 3
  local limit, span = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local cost, age = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4])
  local key, pages_key, window = KEYS[index], KEYS[#KEYS / 2 + index], ARGV[arg] == '0'
  local state
  if window then
    state = window_weigh(redis.call('GET', key), pages_key, now, limit, span)
  else
    state = bucket_weigh(redis.call('GET', key), now, limit, span)
  end
  if state.used == 0 and not window then
    cost = math.max(0, cost - age * limit / span)
  end
  cost = math.min(cost, 2 * limit - state.used)
  if cost > 0 and (age < span or not window) then
    if window then
      local newest = state.live > 0 and state.base + state.last or 0
      window_charge(key, pages_key, state, cost, math.max(now - age, newest), entries)
    else
      bucket_charge(key, state, cost)
    end
    charged = charged + 1
  end
end
return charged

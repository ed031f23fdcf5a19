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
      window       milliseconds
      cost         units
      age          microseconds since it was admitted
  Returns:
    the number of charges of which something was charged
]]
-- @include server_clock
-- @include sliding_window
-- @include token_bucket

local now, charged, count = server_now(), 0, #KEYS / 2
for index = 1, count do
  local arg, key, pages_key = index * 5 - 3, KEYS[index], KEYS[count + index]
  local limit, window_ms = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local cost, age, span = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4]), window_ms * 1000
  local window = ARGV[arg] == '0'
  local weigh, charge = (window and sliding_window or token_bucket)()
  local state, used = weigh(redis.call('GET', key), pages_key, now, limit, span, cost)
  local at = now - age
  if window then
    if age >= span then
      cost = 0
    elseif state and state.base then
      at = math.max(at, state.base + state.last)
    end
  elseif used == 0 then
    cost = cost - age * limit / span
  end
  cost = math.min(cost, 2 * limit - used)
  if cost > 0 then
    charge(key, pages_key, state or nil, at, limit, span, cost, tonumber(ARGV[1]), window_ms + 1000)
    charged = charged + 1
  end
end
return charged

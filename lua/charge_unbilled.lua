--[[
  Charges what was admitted while Redis was down, at the time it was admitted, whether it fits or not.

  At most twice the limit is ever in use, so that all of it has left within two windows.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
  ARGV:
    1              entries of a log before it becomes a ring
    then five for each charge:
      algorithm    0 sliding window, 1 token bucket, 2 calendar
      limit        units
      window       milliseconds, or a calendar's period as in decide_charges
      cost         units
      age          microseconds since it was admitted
  Returns:
    the number of charges of which something was charged
]]
-- @include server_clock
-- @include sliding_window
-- @include token_bucket

local charged, count, entries = 0, #KEYS / 2, tonumber(ARGV[1])
for index = 1, count do
  local arg, key, pages_at = index * 5 - 3, KEYS[index], count + index
  local limit, span = tonumber(ARGV[arg + 1]), ARGV[arg + 2] * 1000
  local cost, age = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4])
  local value = redis.call('MGET', key)[1]
  local weigh = ARGV[arg] == '0' and weigh_window or weigh_bucket
  if ARGV[arg] == '2' then
    -- @include calendar
    weigh, span = weigh_calendar, span / 1000
  end
  local used, _, _, _, _, _, _, from = weigh(weigh, value, key, pages_at, now, limit, span, 0, 0)
  if ARGV[arg] == '0' then
    cost = age < span and cost or 0
  elseif ARGV[arg] == '2' then
    cost = now - age >= from * 60000000 and cost or 0
  elseif used == 0 then
    cost = cost - age * limit / span
  end
  cost = math.min(cost, 2 * limit - used)
  if cost > 0 then
    local _, _, _, state, _, life, _, _, _, gone, page, page_life = weigh(
      weigh, value, key, pages_at, now, limit, span, cost, entries, now - age)
    -- @include write_charge
    charged = charged + 1
  end
end
return charged

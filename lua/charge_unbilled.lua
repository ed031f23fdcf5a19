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
  local arg, key, pages_key = index * 5 - 3, KEYS[index], KEYS[count + index]
  local limit, span = tonumber(ARGV[arg + 1]), ARGV[arg + 2] * 1000
  local cost, age, keep = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4]), span / 1000 + 1000
  local value, state, gone, page, _ = redis.call('MGET', key)[1], nil, nil, nil, nil
  if ARGV[arg] == '0' then
    local used = value and weigh_window(value, key, pages_key, now, limit, span, 0, 0) or 0
    cost = age < span and math.min(cost, 2 * limit - used) or 0
    if cost > 0 then
      _, _, _, state, _, _, _, _, gone, page = weigh_window(
        value, key, pages_key, now, limit, span, cost, entries, now - age)
    end
  elseif ARGV[arg] == '2' then
    -- @include calendar
    local used, _, _, _, _, _, from = weigh_calendar(value, now, limit, span / 1000, 0)
    cost = now - age >= from * 60000000 and math.min(cost, 2 * limit - used) or 0
    _, _, _, state, _, _, _, _, keep = weigh_calendar(value, now, limit, span / 1000, cost)
  else
    local used = weigh_bucket(value, now, limit, span, 0, key, pages_key)
    if used == 0 then
      cost = cost - age * limit / span
    end
    cost = math.min(cost, 2 * limit - used)
    _, _, _, state, _, _, _, _, keep = weigh_bucket(value, now, limit, span, cost, key, pages_key, true)
  end
  if cost > 0 then
    if gone and gone > 0 then
      redis.call('LTRIM', pages_key, gone, -1)
    end
    if page then
      redis.call('RPUSH', pages_key, page)
      redis.call('PEXPIRE', pages_key, keep)
    end
    redis.call('SET', key, state, 'PX', keep)
    charged = charged + 1
  end
end
return charged

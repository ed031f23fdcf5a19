--[[
  Weighs every charge of a request at one instant.

  Part of: decide_charges, peek_charges
  Gives: weigh_charges(count) -> reply, states, now, charge and refresh of each charge

  KEYS and, from ARGV[4] on, the five arguments of each charge are those of decide_charges; the reply is what it returns
  if nothing is charged.
]]
local function weigh_charges(values, count)
  local now = server_now()
  local reply, states, charges, refreshes = { 1, 0, 0, 0, 0 }, {}, {}, {}
  local weigh_window, charge_window, refresh_window
  for index = 1, count do
    local arg, at = index * 5 - 1, index * 4 - 2
    local limit, span, cost = tonumber(ARGV[arg + 1]), ARGV[arg + 2] * 1000, tonumber(ARGV[arg + 3])
    local subject = tonumber(ARGV[arg + 4])
    local weigh
    if ARGV[arg] == '0' then
      if not weigh_window then
        weigh_window, charge_window, refresh_window = sliding_window()
      end
      weigh, charges[index], refreshes[index] = weigh_window, charge_window, refresh_window
    else
      weigh, charges[index], refreshes[index] = token_bucket()
    end
    local state, used, release, wait = weigh(values[index], KEYS[count + index], now, limit, span, cost)
    local code, remaining = 1, limit - used
    if values[2 * count + math.abs(subject)] then
      code, remaining, wait = 3, 0, redis.call('PTTL', KEYS[2 * count + math.abs(subject)]) * 1000
    elseif cost > limit then
      code, wait = 2, -1
    elseif wait > 0 then
      code = 0
    end
    if code ~= 1 and subject > 0 then
      reply[1] = 0
    end
    states[index] = state or false
    reply[at] = code
    reply[at + 1] = remaining > 0 and remaining or 0
    reply[at + 2] = release
    reply[at + 3] = wait
  end
  return reply, states, now, charges, refreshes
end

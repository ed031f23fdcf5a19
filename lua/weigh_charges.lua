--[[
  Weighs every charge of a request at one instant.

  Part of: decide_charges, peek_charges
  Gives: weigh_charges(count, values) -> reply, plans, now

  KEYS and ARGV are those of decide_charges, values what is in KEYS. The reply is the answer if nothing is charged; a plan
  is a list: state, limit, span, cost, and the functions of its algorithm.
]]
local function weigh_charges(count, values)
  local now, reply, plans = server_now(), { 1, 0, 0, 0, 0 }, {}
  local window_weigh, window_charge
  for index = 1, count do
    local at = index * 4 - 2
    local algorithm, limit, window_ms, cost, subject, enforced = struct.unpack('>BI4I6I4BB', ARGV[index * 2 + 1])
    local span, weigh, charge, store = window_ms * 1000, window_weigh, window_charge, nil
    if algorithm == 1 then
      weigh, charge, store = token_bucket()
    elseif not weigh then
      weigh, charge = sliding_window()
      window_weigh, window_charge = weigh, charge
    end
    local state, used, release, wait = weigh(values[index], KEYS[#KEYS - count + index], now, limit, span, cost)
    local code, remaining = 1, limit - used
    if values[count + subject] then
      code, remaining, wait = 3, 0, redis.call('PTTL', KEYS[count + subject]) * 1000
    elseif cost > limit then
      code, wait = 2, -1
    elseif wait > 0 then
      code = 0
    end
    if code ~= 1 and enforced == 1 then
      reply[1] = 0
    end
    reply[at] = code
    reply[at + 1] = remaining > 0 and remaining or 0
    reply[at + 2] = release
    reply[at + 3] = wait
    plans[index] = { state or false, limit, span, cost, charge, store }
  end
  return reply, plans, now
end

--[[
  Weighs every charge of a request at one instant.

  Part of: decide_charges, peek_charges
  Gives: weigh_charges(values, count, now) -> allowed (1 or 0), the charges' states and codes
         answer_charge(reply, index, state, code, charged) writes the four integers of one charge

  values holds what the KEYS of decide_charges do; the charges' five arguments begin at ARGV[4].
]]
local function weigh_charges(values, count, now)
  local allowed, states, codes = 1, {}, {}
  for index = 1, count do
    local arg = index * 5 - 1
    local limit, span, cost = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3])
    local subject = tonumber(ARGV[arg + 4])
    local state
    if ARGV[arg] == '0' then
      state = window_weigh(values[index], KEYS[count + index], now, limit, span)
    else
      state = bucket_weigh(values[index], now, limit, span)
    end
    local code = 1
    if values[2 * count + math.abs(subject)] then
      code = 3
    elseif cost > limit then
      code = 2
    elseif state.used + cost > limit then
      code = 0
    end
    if code ~= 1 and subject > 0 then
      allowed = 0
    end
    states[index], codes[index] = state, code
  end
  return allowed, states, codes
end

local function answer_charge(reply, index, count, state, code, charged)
  local arg, at = index * 5 - 1, index * 4 - 2
  local window = ARGV[arg] == '0'
  local wait = 0
  if code == 0 then
    wait = (window and window_wait or bucket_wait)(state, tonumber(ARGV[arg + 3]))
  elseif code == 2 then
    wait = -1
  elseif code == 3 then
    wait = redis.call('PTTL', KEYS[2 * count + math.abs(tonumber(ARGV[arg + 4]))]) * 1000
  end
  reply[at] = code
  reply[at + 1] = code == 3 and 0 or math.max(0, math.floor(state.limit - state.used - charged))
  reply[at + 2] = (window and window_release or bucket_release)(state, charged)
  reply[at + 3] = wait
end

--[[
  Decides a request under all its policies: checks every charge, then charges all of them or none.

  KEYS:
    1..n           the state of each charge
    n+1..n+s       the block of each subject
    n+s+1          the record of this request id, if there is one
    the last n     the pages of each charge
  ARGV:
    1              entries of a log before it becomes a ring
    2              how long to keep the record, in milliseconds; 0: there is none
    then two for each charge:
      charge       packed as '>BI4I6I4BB': algorithm (0 sliding window, 1 token bucket), limit (units), window
                   (milliseconds), cost (units), subject (index of its block, 1..s), enforced (0: a shadow, 1)
      keep         how long a window's state lives after a charge, milliseconds: the window and a second
  Returns:
    1 if the request is allowed, else 0; then four integers for each charge:
      state        0 denied, 1 fits, 2 its cost is above the limit, 3 the subject is blocked
      remaining    units left after this decision
      release      microseconds until more units are free; 0 if none are in use
      wait         microseconds until this cost fits; 0 if it does, -1 if it never will
    A request id that has been decided gets its first answer and is not charged again.
]]
local count = (#ARGV - 2) / 2

-- @include server_clock
-- @include sliding_window
-- @include token_bucket
-- @include weigh_charges

local record_key = ARGV[2] ~= '0' and KEYS[#KEYS - count]
local values = redis.call('MGET', unpack(KEYS, 1, #KEYS - count))
if record_key and values[#KEYS - count] then
  return cmsgpack.unpack(values[#KEYS - count])[1]
end

local reply, plans, now = weigh_charges(count, values)
local receipts = record_key and {}
for index = 1, count do
  local at, key, pages_key = index * 4 - 2, KEYS[index], KEYS[#KEYS - count + index]
  local state, limit, span, cost, charge, store = unpack(plans[index], 1, 6)
  local receipt
  if reply[1] == 1 and reply[at] == 1 then
    local release, tag, base, time =
      charge(key, pages_key, state, now, limit, span, cost, tonumber(ARGV[1]), ARGV[index * 2 + 2])
    reply[at + 1] = reply[at + 1] - cost
    reply[at + 2] = release or reply[at + 2]
    receipt = record_key and { cost, tag, base, time }
  elseif state and state.shifted then
    if store then
      store(key, state, limit, span)
    else
      sliding_window_rewriting().refresh(key, pages_key, state, ARGV[index * 2 + 2])
    end
  end
  if record_key then
    receipts[index] = receipt or { 0 }
  end
end
if record_key then
  redis.call('SET', record_key, cmsgpack.pack({ reply, receipts }), 'PX', ARGV[2])
end
return reply

--[[
  Decides a request under all its policies: checks every charge, then charges all of them or none.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
    2n+1..2n+s     the block of each subject
    2n+s+1         the record of this request id, if there is one
  ARGV:
    1              n, the number of charges
    2              entries of a log before it becomes a ring
    3              how long to keep the record, in milliseconds; 0: there is none
    then five for each charge:
      algorithm    0 sliding window, 1 token bucket
      limit        units
      window       milliseconds
      cost         units
      subject      index of its block: 1..s; negative for a shadow charge, which is never enforced
  Returns:
    1 if the request is allowed, else 0; then four integers for each charge:
      state        0 denied, 1 fits, 2 its cost is above the limit, 3 the subject is blocked
      remaining    units left after this decision
      release      microseconds until more units are free; 0 if none are in use
      wait         microseconds until this cost fits; 0 if it does, -1 if it never will
    A request id that has been decided gets its first answer and is not charged again.
]]
local count, entries, keep_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

-- @include server_clock
-- @include sliding_window
-- @include token_bucket
-- @include weigh_charges

local values = redis.call('MGET', unpack(KEYS))
if keep_ms > 0 and values[#KEYS] then
  return cmsgpack.unpack(values[#KEYS])[1]
end

local reply, states, now, charges, refreshes = weigh_charges(values, count)
local receipts = {}
for index = 1, count do
  local arg, at, state = index * 5 - 1, index * 4 - 2, states[index]
  local key, pages_key, limit, window_ms = KEYS[index], KEYS[count + index], tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  if reply[1] == 1 and reply[at] == 1 then
    local cost = tonumber(ARGV[arg + 3])
    local release, tag, base, time = charges[index](key, pages_key, state, now, limit, window_ms, cost, entries)
    reply[at + 1] = reply[at + 1] - cost
    reply[at + 2] = release or reply[at + 2]
    receipts[index] = { cost, tag, base, time }
  elseif state and state.shifted then
    refreshes[index](key, pages_key, state, window_ms, limit)
  end
end
if keep_ms > 0 then
  for index = 1, count do
    receipts[index] = receipts[index] or { 0 }
  end
  redis.call('SET', KEYS[#KEYS], cmsgpack.pack({ reply, receipts }), 'PX', keep_ms)
end
return reply

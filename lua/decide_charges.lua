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
      span         the window in microseconds
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

local now = server_now()
local allowed, states, codes = weigh_charges(values, count, now)
local reply, receipts = { allowed, 0, 0, 0, 0 }, {}
for index = 1, count do
  local state, code, arg = states[index], codes[index], index * 5 - 1
  local charged = allowed == 1 and code == 1 and tonumber(ARGV[arg + 3]) or 0
  answer_charge(reply, index, count, state, code, charged)
  local edition, base, at = 0, 0, 0
  if charged > 0 then
    if ARGV[arg] == '0' then
      edition, base, at = window_charge(KEYS[index], KEYS[count + index], state, charged, now, entries)
    else
      edition, base, at = bucket_charge(KEYS[index], state, charged)
    end
  elseif state.shifted then
    local refresh = ARGV[arg] == '0' and window_refresh or bucket_refresh
    refresh(KEYS[index], state)
  end
  if keep_ms > 0 then
    receipts[index] = { charged, edition, base, at }
  end
end
if keep_ms > 0 then
  redis.call('SET', KEYS[#KEYS], cmsgpack.pack({ reply, receipts }), 'PX', keep_ms)
end
return reply

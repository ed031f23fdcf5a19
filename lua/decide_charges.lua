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
    then one for each charge, packed as '>BI4I6I4BB':
      algorithm    0 sliding window, 1 token bucket
      limit        units
      window       milliseconds
      cost         units
      subject      index of its block, 1..s
      enforced     1, or 0 for a shadow
  Returns:
    1 if the request is allowed, else 0; then four integers for each charge:
      state        0 denied, 1 fits, 2 its cost is above the limit, 3 the subject is blocked
      remaining    units left after this decision
      release      microseconds until more units are free; 0 if none are in use
      wait         microseconds until this cost fits; 0 if it does, -1 if it never will
    A request id that has been decided gets its first answer and is not charged again.
]]
local count, record_key = #ARGV - 2, nil

-- @include server_clock
-- @include sliding_window
-- @include token_bucket
-- @include weigh_charges

local values = redis.call('MGET', unpack(KEYS, 1, #KEYS - count))
if ARGV[2] ~= '0' then
  record_key = KEYS[#KEYS - count]
  if values[#KEYS - count] then
    return cmsgpack.unpack(values[#KEYS - count])[1]
  end
end

local reply, writes = weigh_charges(count, values, tonumber(ARGV[1]))
local receipts = record_key and {}
for index = 1, count do
  local at, write = index * 4 - 2, reply[1] == 1 and writes[index]
  if write then
    local state, keep_ms, release, tag, base, time, gone, cost, page = unpack(write, 1, 9)
    if gone > 0 then
      redis.call('LTRIM', KEYS[#KEYS - count + index], gone, -1)
    end
    if page then
      redis.call('RPUSH', KEYS[#KEYS - count + index], page)
      redis.call('PEXPIRE', KEYS[#KEYS - count + index], keep_ms)
    end
    redis.call('SET', KEYS[index], state, 'PX', keep_ms)
    reply[at + 1], reply[at + 2] = reply[at + 1] - cost, release
    if receipts then
      receipts[index] = { cost, tag, base, time }
    end
  elseif receipts then
    receipts[index] = { 0 }
  end
end
if receipts then
  redis.call('SET', record_key, cmsgpack.pack({ reply, receipts }), 'PX', ARGV[2])
end
return reply

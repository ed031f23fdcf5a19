--[[
  Decides a request under all its policies: checks every charge, then charges all of them or none.

  KEYS:
    1..n           the state of each charge
    n+1..n+s       the block of each subject
    n+s+1          the record of this request id, if there is one
    the last n     the pages of each charge
  ARGV:
    1              the charges, packed: their number ('B'), then for each '>BI4I6I4I4BBBc0':
      algorithm    0 sliding window, 1 token bucket, 2 calendar
      limit        units
      window       milliseconds; of a calendar, the period's start in minutes since 1970 * 65536 + its minutes
      cost         units
      entries      of a log before it becomes a ring
      block        index of its subject's block in KEYS
      enforced     1, or 0 for a shadow
      keep         the life of a log, milliseconds in decimal, its length before it
    2              how long to keep the record, in milliseconds, if there is one
  Returns:
    packed: 1 if the request is allowed, else 0 ('B'), then for each charge '>BI4i8i8':
      state        0 denied, 1 fits, 2 its cost is above the limit, 3 the subject is blocked
      remaining    units left after this decision
      release      microseconds until more units are free; 0 if none are in use
      wait         microseconds until this cost fits; 0 if it does, -1 if it never will
    A request id that has been decided gets its first answer and is not charged again.
]]
local count, record_key = string.byte(ARGV[1]), nil
local values = redis.call('MGET', unpack(KEYS, 1, #KEYS - count))
if ARGV[2] then
  record_key = KEYS[#KEYS - count]
  if values[#KEYS - count] then
    return cmsgpack.unpack(values[#KEYS - count])[1]
  end
end

-- @include server_clock
-- @include sliding_window
-- @include weigh_charges

local reply, receipts = allowed and '\1' or '\0', record_key and {}
for index = 1, count do
  local code, remaining, release, wait, cost, state, keep, release_then, tag, base, offset, gone, page =
    unpack(weighed[index], 1, 13)
  if allowed and code == 1 then
    if gone and gone > 0 then
      redis.call('LTRIM', KEYS[#KEYS - count + index], gone, -1)
    end
    if page then
      redis.call('RPUSH', KEYS[#KEYS - count + index], page)
      redis.call('PEXPIRE', KEYS[#KEYS - count + index], keep)
    end
    redis.call('SET', KEYS[index], state, 'PX', keep)
    remaining, release = remaining - cost, release_then
  else
    cost = 0
  end
  reply = reply .. struct.pack('>BI4i8i8', code, remaining, release, wait)
  if receipts then
    receipts[index] = { cost, tag, base, offset }
  end
end
if receipts then
  redis.call('SET', record_key, cmsgpack.pack({ reply, receipts }), 'PX', ARGV[2])
end
return reply

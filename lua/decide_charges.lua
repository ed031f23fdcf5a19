--[[
  Decides a request under all its policies: checks every charge, then charges all of them or none.

  KEYS:
    1..n           the state of each charge
    n+1..2n        the pages of each charge
    2n+1..2n+s     the block of each subject
    2n+s+1         the record of this request id, if there is one
  ARGV:
    1              the charges, packed, for each '>BI4I6I4I4B':
      rule         0 sliding window, 2 token bucket, 4 calendar; one more for a shadow
      limit        units
      window       microseconds; of a calendar, the period's start in minutes since 1970 * 65536 + its minutes
      cost         units
      entries      of a log before it becomes a ring
      block        index of its subject's block in KEYS
    2              how long to keep the record, in milliseconds, if there is one
  Returns:
    packed: 1 if the request is allowed, else 0 ('B'), then for each charge '>BI4i8i8':
      state        0 denied, 1 fits, 2 its cost is above the limit, 3 the subject is blocked
      remaining    units left after this decision
      release      microseconds until more units are free; 0 if none are in use
      wait         microseconds until this cost fits; 0 if it does, -1 if it never will
    A request id that has been decided gets its first answer and is not charged again.
]]
local receipts = ARGV[2] and {}
if receipts then
  local record = redis.call('GET', KEYS[#KEYS])
  if record then
    return cmsgpack.unpack(record)[1]
  end
end

-- @include server_clock
-- @include weigh_charges

local allowed, answers = decide(decide, weigh_window, now, receipts, count, 1, 1, true)
local reply = (allowed and '\1' or '\0') .. answers
if receipts then
  redis.call('SET', KEYS[#KEYS], cmsgpack.pack({ reply, receipts }), 'PX', ARGV[2])
end
return reply

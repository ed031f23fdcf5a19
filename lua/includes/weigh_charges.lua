--[[
  Weighs every charge of a request at one instant, and then writes all of them or none.

  Part of: decide_charges, peek_charges
  Gives: decide(decide, weigh_window, now, receipts, count, index, position, allowed, block_at, blocked) -> whether each
    enforced charge fits, and the packed answers, from the charge `index`, at `position` of ARGV[1], on

  KEYS and ARGV are those of decide_charges. Where a log has no entries, nothing is written, and no answer has its cost
  taken off. `receipts` gets what refunds need, if it is a table. `allowed` says whether the charges before fit,
  `blocked` what is at KEYS[block_at], the last block that was looked up.

  It calls itself for the next charge before it writes its own: what was found out about a charge stays in its frame,
  where tables of it would cost as much as the weighing. What it uses is given to it: a function is dearer to make with
  each local of the script that it takes with it.
]]
-- @include sliding_window

local count = #ARGV[1] / 20
local function decide(decide, weigh_window, now, receipts, count, index, position, allowed, block_at, blocked)
  local rule, limit, span, cost, entries, block, after = struct.unpack('>BI4I6I4I4B', ARGV[1], position)
  local key, pages_at = KEYS[index], count + index
  local value = redis.pcall('GET', key)
  if type(value) ~= 'string' then
    value = nil
  end
  local weigh = weigh_window
  if rule > 3 then
    -- @include calendar
    weigh = weigh_calendar
  elseif rule > 1 then
    -- @include token_bucket
    weigh = weigh_bucket
  end
  local used, release, wait, state, release_then, life, tag, base, offset, gone, page, page_life =
    weigh(weigh, value, key, pages_at, now, limit, span, cost, entries)
  local code, remaining, answers = 1, limit - used, ''
  if block ~= block_at then
    block_at, blocked = block, redis.call('EXISTS', KEYS[block])
  end
  if blocked == 1 then
    code, remaining, wait = 3, 0, redis.call('PTTL', KEYS[block]) * 1000
  elseif cost > limit then
    code, wait = 2, -1
  elseif wait > 0 then
    code = 0
    if entries > 0 and rule < 4 then
      -- @include kept_longer
      -- A slower rate or a longer window makes what is in use last longer than its key was to live when it was written.
      local lasts = math.ceil((rule < 2 and release_then or used * span / limit) / 1000)
      if (rule < 2 and life / 1000 or redis.call('PTTL', key)) < lasts then
        redis.call('PEXPIRE', key, lasts + KEPT_LONGER_MS)
        redis.call('PEXPIRE', KEYS[pages_at], lasts + KEPT_LONGER_MS)
      end
    end
  end
  if code ~= 1 and rule % 2 == 0 then
    allowed = false
  end
  if index < count then
    allowed, answers = decide(decide, weigh_window, now, receipts, count, index + 1, after, allowed, block_at, blocked)
  end

  if allowed and code == 1 and entries > 0 then
    -- @include write_charge
    remaining, release = remaining - cost, release_then
    if receipts then
      receipts[index] = { cost, tag, base, offset }
    end
  elseif receipts then
    receipts[index] = { 0 }
  end
  if remaining < 0 then
    remaining = 0
  end
  return allowed, struct.pack('>BI4i8i8', code, remaining - remaining % 1, release, wait) .. answers
end

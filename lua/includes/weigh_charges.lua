--[[
  Weighs every charge of a request at one instant.

  Part of: decide_charges, peek_charges
  Gives: allowed, whether each enforced charge fits; weighed, for each charge a list of
    its answer if nothing is charged (state, remaining, release and wait, as in decide_charges), and the cost;
    if it fits, what to write: the new state, its life in milliseconds, the release after it, three numbers that a
    refund needs, the pages to drop and the page to add

  KEYS and ARGV are those of decide_charges; `values` is what is in KEYS, `now` the time.
]]
local allowed, weighed, position = true, { false }, 2
for index = 1, count do
  local algorithm, limit, window_ms, cost, entries, block, enforced, keep, after =
    struct.unpack('>BI4I6I4I4BBBc0', ARGV[1], position)
  position = after
  local span = window_ms * 1000
  local key, pages_key = KEYS[index], KEYS[#KEYS - count + index]
  local used, release, wait, state, release_then, tag, base, offset, gone, page
  if algorithm == 0 then
    used, release, wait, state, release_then, tag, base, offset, gone, page = weigh_window(
      values[index], key, pages_key, now, limit, span, cost, entries)
  elseif algorithm == 2 then
    -- @include calendar
    used, release, wait, state, release_then, tag, base, offset, keep = weigh_calendar(
      values[index], now, limit, window_ms, cost)
  else
    -- @include token_bucket
    used, release, wait, state, release_then, tag, base, offset, keep = weigh_bucket(
      values[index], now, limit, span, cost, key, pages_key, entries > 0)
  end
  local code, remaining = 1, limit - used
  if values[block] then
    code, remaining, wait = 3, 0, redis.call('PTTL', KEYS[block]) * 1000
  elseif cost > limit then
    code, wait = 2, -1
  elseif wait > 0 then
    code = 0
    if entries > 0 and algorithm < 2 then
      -- A slower rate or a longer window makes what is in use last longer than its key was to live when it was written.
      local lasts = math.ceil((algorithm == 0 and release_then or used * span / limit) / 1000)
      if redis.call('PTTL', key) < lasts then
        redis.call('PEXPIRE', key, lasts + 1000)
        redis.call('PEXPIRE', pages_key, lasts + 1000)
      end
    end
  end
  if code ~= 1 and enforced == 1 then
    allowed = false
  end
  remaining = remaining > 0 and math.floor(remaining) or 0
  weighed[index] =
    { code, remaining, release, wait, cost, state, keep, release_then, tag, base, offset, gone, page }
end

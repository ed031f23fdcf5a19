--[[
  What rarely happens to the log of a sliding window: it is read, changed and written anew as a whole.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: rewrite_window(value, key, pages_key, now, span, kind, slot, change) -> the new state, or nil if nothing is left
]]

-- @include sliding_window_entries

-- Writes the entries anew, in a kind, at a base that fits the clock; `now`, `span` and `slot` are microseconds. It may be
-- for a request that is refused in the end: all entries are kept but those too old for any window of the kind. The base
-- moves by whole slots relative to the entries: each stays in the slot that it was merged in. If `change` is given, it
-- gets the entries as lists of times, totals since the log's start and their number, and returns how many there are
-- now; kind and base stay, as another refund may need them.
local function rewrite_window(value, key, pages_key, now, span, kind, slot, change)
  local tag, base, before, last, text, entry, bytes, modulus = read_window(value, pages_key)
  redis.call('UNLINK', pages_key)

  local moved, reach = math.max(0, base + last - now), (kind == 1 and 140737488355328 or 549755813888) - slot
  local times, totals, count = {}, {}, 0
  for offset = 1, #text, bytes do
    local at, charged = struct.unpack(entry, text, offset)
    if now - (base - moved + at) < reach then
      count = count + 1
      times[count], totals[count] = at, (charged - before) % modulus
    else
      before = charged
    end
  end
  if change then
    count = change(times, totals, count)
  end
  if count == 0 then
    redis.call('UNLINK', key)
    return nil
  end

  local shift = change and 0 or times[1] - times[1] % slot
  if not change then
    tag, base = (tag - tag % 4 + 4) % 256 + kind, base - moved + shift
  end
  entry = tag % 4 == 1 and '>I6I4' or '>I5I2'
  local parts = {}
  for index = 1, count do
    parts[index] = struct.pack(entry, times[index] - shift, totals[index])
  end
  local life, kept
  -- @include sliding_window_life
  -- @include sliding_window_page
  local front, pages, from = 0, 0, 1
  if count > 2 * PAGE then
    front, from = PAGE, PAGE + 1
    while count - from > PAGE do
      redis.call('RPUSH', pages_key, table.concat(parts, '', from, from + PAGE - 1))
      pages, from = pages + 1, from + PAGE
    end
    redis.call('PEXPIRE', pages_key, life + KEPT_LONGER_MS)
  end
  local form = tag % 4 == 1 and '>BI7I4I4BI2' or '>BI7I3I2BI2'
  local state = struct.pack(form, tag, base, kept, 0, front, pages)
    .. table.concat(parts, '', 1, front) .. table.concat(parts, '', from)
  redis.call('SET', key, state, 'PX', life)
  return state
end

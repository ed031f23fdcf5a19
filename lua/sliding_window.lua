--[[
  The sliding window: an exact log of admissions, packed; a ring of slots when it is long.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: weigh_window(value, key, pages_key, now, limit, span, cost, entries, forced_at)

  The state is a string: a head of 22 or 25 bytes with the newest admission in it, then the others, oldest first.
    head    kind + 2 * edition (1 byte), base (7 bytes, microseconds since 1970), start (4), front (1), pages (2), entry
    entry   at (microseconds after base), total (units charged up to and with this entry, modulo 2^16 or 2^32)
    kind 0  entries of 5 + 2 bytes: limits up to 32,767 units and windows up to 2^39 us (6.3 days)
    kind 1  entries of 6 + 4 bytes: limits up to 2^31 - 1 units and windows up to 2^47 us (4.4 years)
  `start` is the running total before the first entry, so units in use = newest total - total before the first live
  entry: one search, whatever the costs. An entry is live while now - at < span.

  Beyond 32 entries the middle moves out, 16 entries a page, to a list beside the state: the string keeps the `front`
  entries before the `pages` and the entries after them. A decision then reads and writes some 150 bytes however long
  the log is, and touches the list once in 16 times. (Lua hashes each string that it gets: long ones cost.)

  The ring: once `entries` entries are live, an admission in the same slot (span / entries long) as the newest is merged
  into it, at the later time. Units therefore leave at most one slot late and never early, and there are never more than
  2 * entries + 2 entries.

  The clock never goes back for a key: when the server's does (a failover), the whole log is shifted back by moving its
  base, so that its newest entry happened just now. The edition changes whenever the base does: a refund is void then.
]]
local PAGE = 16

-- @include sliding_window_rewriting

-- The first of the entries low..count, after `skip` bytes of `text`, whose time (before nil) or whose units since
-- `before` exceed `bound`; count + 1 if none does. Gallops, then bisects: few entries leave between two decisions.
local function window_search(text, skip, kind, low, count, bound, before)
  local entry, bytes, modulus = '>I5I2', 7, 65536
  if kind == 1 then
    entry, bytes, modulus = '>I6I4', 10, 4294967296
  end
  local probe, step, high = low, 1, count + 1
  while low < high do
    local at, total = struct.unpack(entry, text, skip + 1 + (probe - 1) * bytes)
    if (before and (total - before) % modulus or at) > bound then
      high, step = probe, nil
    else
      low = probe + 1
    end
    if step then
      step = step * 2
      probe = math.min(probe + step, high - 1)
    else
      probe = math.floor((low + high) / 2)
    end
  end
  return low
end

-- The time after base at which `units` of the units in use have left, several entries' perhaps. The entries are those of
-- `text` from `first` to `count`, then the pages but the `gone` ones, then `back` of the state's, then the newest.
local function window_leaving(units, value, pages_key, text, skip, kind, first, count, start, gone, pages, back, last)
  local entry, bytes = '>I5I2', 7
  if kind == 1 then
    entry, bytes = '>I6I4', 10
  end
  for part = 0, pages + 1 do
    local index = window_search(text, skip, kind, first, count, units - 1, start)
    if index <= count then
      return (struct.unpack(entry, text, skip + 1 + (index - 1) * bytes))
    end
    first = 1
    if part < pages then
      text = redis.call('LINDEX', pages_key, gone + part) or ''
      skip, count = 0, #text / bytes
    else
      text, skip, count = value, #value - back * bytes, back
    end
  end
  return last
end

-- What a state says at `now`, microseconds as `span` is, about a charge of `cost` units. Returns
--   the units in use, the microseconds until more units are free (0: all are), and until the cost fits, if it ever does;
--   if it fits (or at `forced_at` in any case) and `entries` is given, the charge to write: the new state, its life in
--   milliseconds, the release after it, and what a refund needs (kind and edition, base, the time after it), then the
--   pages to drop, the cost, and the page to add.
local function weigh_window(value, key, pages_key, now, limit, span, cost, entries, forced_at)
  local wide, keep_ms = limit > 32767 or span > 549755813888, span / 1000 + 1000
  if not value then
    if not entries or (cost > limit and not forced_at) then
      return 0, 0, 0
    end
    local at = forced_at or now
    local tag, head = 0, '>BI7I4BI2I5I2'
    if wide then
      tag, head = 1, '>BI7I4BI2I6I4'
    end
    return 0, 0, 0, { struct.pack(head, tag, at, 0, 0, 0, 0, cost), keep_ms, span, tag, at, 0, 0, cost }
  end

  local head, entry, bytes, skip, modulus, reach = '>BI7I4BI2I5I2', '>I5I2', 7, 22, 65536, 549755813888
  local tag, base, start, front, pages, last, total = struct.unpack(head, value)
  local kind = tag % 2
  if kind == 1 then
    head, entry, bytes, skip, modulus, reach = '>BI7I4BI2I6I4', '>I6I4', 10, 25, 4294967296, 140737488355328
    tag, base, start, front, pages, last, total = struct.unpack(head, value)
  end
  if base + last > now then
    if entries then
      value = rewrite_window(value, key, pages_key, now, span, kind, false)
      return weigh_window(value, key, pages_key, now, limit, span, cost, entries, forced_at)
    end
    base = now - last
  end
  local dead = now - span - base

  -- The part that holds the first live entry: the front, a page, the back or, behind all of them, the newest.
  local text, count, back, gone = value, (#value - skip) / bytes, 0, 0
  if pages > 0 then
    back, count = count - front, front
  end
  local first, first_at, used = 1, last, 0
  if last <= dead then
    gone, pages, count, back = pages, 0, 0, 0
  else
    while true do
      if count > 0 then
        first_at = struct.unpack(entry, text, skip + 1)
        if first_at <= dead then
          local _
          first = window_search(text, skip, kind, 2, count, dead)
          _, start = struct.unpack(entry, text, skip + 1 + (first - 2) * bytes)
          if first <= count then
            first_at = struct.unpack(entry, text, skip + 1 + (first - 1) * bytes)
          end
        end
        if first <= count then
          break
        end
      end
      first = 1
      if pages > 0 then
        text = redis.call('LINDEX', pages_key, gone) or ''
        skip, count, gone, pages = 0, #text / bytes, gone + 1, pages - 1
      elseif back > 0 then
        text, skip, count, back = value, #value - back * bytes, back, 0
      else
        count, first_at = 0, last
        break
      end
    end
    used = (total - start) % modulus
  end

  local release = used > 0 and base + first_at + span - now or 0
  if used > limit then
    release = base + span - now + window_leaving(
      used + 1 - limit, value, pages_key, text, skip, kind, first, count, start, gone, pages, back, last)
  end
  if used + cost > limit and not forced_at then
    local wait = 0
    if used + cost - limit == 1 then
      wait = base + first_at + span - now
    elseif cost <= limit then
      wait = base + span - now + window_leaving(
        used + cost - limit, value, pages_key, text, skip, kind, first, count, start, gone, pages, back, last)
    end
    return used, release, wait
  elseif not entries then
    return used, release, 0
  end

  local at = now
  if forced_at then
    at = math.max(forced_at, base + last)
  end
  local offset = at - base
  if (wide and kind == 0) or offset > reach then
    value = rewrite_window(value, key, pages_key, now, span, wide and 1 or kind, offset > reach)
    return weigh_window(value, key, pages_key, now, limit, span, cost, entries, forced_at)
  end
  local older, page = '', nil
  if used == 0 then
    tag, base, start, offset, total = (tag + 2) % 256, at, 0, 0, 0
    front = 0
  else
    local live, merged = count - first + 1, offset == last
    if not merged and live + 1 + pages * PAGE + back >= entries then
      local slot = math.ceil(span / entries)
      merged = math.floor(offset / slot) == math.floor(last / slot)
    end
    older = merged and '' or struct.pack(entry, last, total)
    if back > 0 then
      older = string.sub(value, -back * bytes) .. older
    end
    if pages > 0 and #older == PAGE * bytes then
      page, older = older, ''
    end
    if live > 0 then
      local from = skip + 1 + (first - 1) * bytes
      older = string.sub(text, from, from + live * bytes - 1) .. older
    end
    front = pages > 0 and live or 0
    if pages == 0 and #older >= 2 * PAGE * bytes then
      local middle = PAGE * bytes
      page, front = string.sub(older, middle + 1, 2 * middle), PAGE
      older = string.sub(older, 1, middle) .. string.sub(older, 2 * middle + 1)
    end
    pages = page and pages + 1 or pages
  end
  local state = struct.pack(head, tag, base, start, front, pages, offset, (total + cost) % modulus) .. older
  return used, release, 0, { state, keep_ms, used == 0 and span or release, tag, base, offset, gone, cost, page }
end

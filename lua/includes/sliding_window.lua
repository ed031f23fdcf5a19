--[[
  The sliding window: an exact log of admissions, packed; a ring of slots when it is long.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: weigh_window(value, key, pages_key, now, limit, span, cost, entries, forced_at)

  The state is a string: a head of 22 or 25 bytes with the newest admission in it, then the others, oldest first.
    head    kind + 4 * edition (1 byte), base (7 bytes, microseconds since 1970), start (4), front (1), pages (2), entry
    entry   at (microseconds after base), total (units charged up to and with this entry, modulo 2^16 or 2^32)
    kind 0  entries of 5 + 2 bytes: limits up to 32,767 units and windows up to 2^38 us (3.1 days)
    kind 1  entries of 6 + 4 bytes: limits up to 2^31 - 1 units and windows up to 2^46 us (2.2 years)
    kind 2  a bucket (token_bucket), left by a policy that was one before a reload: it is carried over
  An entry's time reaches twice as far as the window, so that the base has to move no more than once a window.
  `start` is the running total before the first entry, so units in use = newest total - total before the first live
  entry, whatever the costs. An entry is live while now - at < span.

  Beyond 32 entries the middle moves out, 16 entries a page, to a list beside the state: the string keeps the `front`
  entries before the `pages` and the entries after them. A decision then reads and writes some 150 bytes however long
  the log is, and touches the list once in 16 times. (Lua hashes each string that it gets: long ones cost.)

  The ring: once `entries` entries are live, an admission in the same slot (span / entries long) as the newest is merged
  into it, at the later time. Units therefore leave at most one slot late and never early, and there are never more than
  2 * entries + 2 entries. Slots are counted from the base, which moves by whole slots relative to the entries, so that
  a clock that steps back makes none longer. A reload of the window changes the slots: an entry that grows before and
  after it is late by a slot of each window at most.

  The clock never goes back for a key: when the server's does (a failover), the whole log is shifted back by moving its
  base, so that its newest entry happened just now. The edition changes whenever the base or the algorithm does: a
  refund is void then. Another format than these needs other names for its keys (server/ratelimit/policies.py).
]]
-- @include sliding_window_page

-- Weighs a charge of `cost` units against a state at `now`, in microseconds as `span`. Returns
--   the units in use, the microseconds until more are free (0: all are), and until the cost fits, if it ever does;
--   if it does not fit, nil and the microseconds until nothing is in use;
--   if it fits (or at `forced_at` in any case) and `entries` is not 0, the charge to write: the new state, the release
--   after it, what a refund needs (kind and edition, base, the time after it), the pages to drop, and the page to add.
local function weigh_window(value, key, pages_key, now, limit, span, cost, entries, forced_at)
  local wide = limit > 32767 or span > 274877906944
  if not value then
    local at, tag, head = forced_at or now, 0, '>BI7I4BI2I5I2'
    if wide then
      tag, head = 1, '>BI7I4BI2I6I4'
    end
    return 0, 0, 0, struct.pack(head, tag, at, 0, 0, 0, 0, cost), span, tag, at, 0, 0
  end

  local head, entry, bytes, skip, modulus, reach = '>BI7I4BI2I5I2', '>I5I2', 7, 22, 65536, 549755813888
  local tag, base, start, front, pages, last, total = struct.unpack(head, value)
  local kind = tag % 4
  if kind == 1 then
    head, entry, bytes, skip, modulus, reach = '>BI7I4BI2I6I4', '>I6I4', 10, 25, 4294967296, 140737488355328
    tag, base, start, front, pages, last, total = struct.unpack(head, value)
  elseif kind == 2 then
    -- @include window_from_bucket
    value = window_from_bucket(value, key, now, limit, span, wide, entries > 0)
    return weigh_window(value, key, pages_key, now, limit, span, cost, entries, forced_at)
  end
  if entries > 0 and (base + last > now or now - base > reach or (wide and kind == 0)) then
    -- @include sliding_window_rewriting
    value = rewrite_window(value, key, pages_key, now, span, wide and 1 or kind, math.ceil(span / entries))
    return weigh_window(value, key, pages_key, now, limit, span, cost, entries, forced_at)
  elseif base + last > now then
    base = now - last
  end

  -- What happened at `dead` or before has left: look for the first live entry, in the front, the pages, the back, until
  -- only the newest is left. In the end it is at `position` of the part `text`, the first of `count` live ones there;
  -- `start` is the total before it, `gone` pages lie behind it, `pages` and `back` entries of the state before it.
  local dead = now - span - base
  local text, position, count, back, gone = value, skip + 1, (#value - skip) / bytes, 0, 0
  if pages > 0 then
    back, count = count - front, front
  end
  local first_at, used = last, 0
  if last <= dead then
    gone, pages, count, back = pages, 0, 0, 0
  else
    while true do
      while count > 0 do
        local at, charged = struct.unpack(entry, text, position)
        if at > dead then
          first_at = at
          break
        end
        start, position, count = charged, position + bytes, count - 1
      end
      if count > 0 then
        break
      elseif pages > 0 then
        text = redis.call('LINDEX', pages_key, gone) or ''
        position, count, gone, pages = 1, #text / bytes, gone + 1, pages - 1
        local at, charged = dead, start
        if count > 0 then
          at, charged = struct.unpack(entry, text, #text + 1 - bytes)
        end
        if at <= dead then
          start, count = charged, 0
        end
      elseif back > 0 then
        text, position, count, back = value, #value + 1 - back * bytes, back, 0
      else
        position = #text + 1
        break
      end
    end
    used = (total - start) % modulus
  end

  local release = used > 0 and base + first_at + span - now or 0
  if used + cost > limit and not forced_at then
    local wait = release
    if used > limit or (used + cost > limit + 1 and cost <= limit) then
      -- @include sliding_window_leaving
      release = used > limit and window_leaving(used + 1 - limit) or release
      wait = cost <= limit and window_leaving(used + cost - limit) or 0
    end
    return used, release, wait, nil, base + last + span - now
  elseif entries == 0 then
    return used, release, 0
  elseif used == 0 then
    tag = (tag + 4) % 256
    local at = forced_at or now
    return 0, 0, 0, struct.pack(head, tag, at, 0, 0, 0, 0, cost), span, tag, at, 0, gone
  end

  local offset = now - base
  if forced_at then
    offset = math.max(forced_at - base, last)
  end
  local merged = offset == last
  if not merged and count + 1 + pages * PAGE + back >= entries then
    local slot = math.ceil(span / entries)
    merged = math.floor(offset / slot) == math.floor(last / slot)
  end
  -- The new state is a head, the live entries, and what was the newest so far; when these make a page, it moves out.
  local kept, newest, page = string.sub(text, position), '', nil
  if text ~= value and back > 0 then
    kept = kept .. string.sub(value, -back * bytes)
  end
  if not merged then
    newest, back = struct.pack(entry, last, total), back + 1
  end
  if pages > 0 then
    front = count
    if back == PAGE then
      kept, newest, page = string.sub(kept, 1, count * bytes), '', string.sub(kept, count * bytes + 1) .. newest
    end
  elseif count + back >= 2 * PAGE then
    local middle = PAGE * bytes
    -- There are no pages; what may lie there is left from a state that is gone, as a shorter window was kept for less.
    kept, front, gone = kept .. newest, PAGE, 65535
    page, newest = string.sub(kept, middle + 1, 2 * middle), string.sub(kept, 2 * middle + 1)
    kept = string.sub(kept, 1, middle)
  else
    front = 0
  end
  pages = page and pages + 1 or pages
  return used, release, 0,
    struct.pack(head, tag, base, start, front, pages, offset, (total + cost) % modulus) .. kept .. newest,
    release, tag, base, offset, gone, page
end

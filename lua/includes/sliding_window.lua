--[[
  The sliding window: an exact log of admissions, packed; a ring of slots when it is long.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: weigh_window(weigh_window, value, key, pages_at, now, limit, span, cost, entries, forced_at)

  The state is a string: a head of 16 or 19 bytes, then the entries, oldest first.
    head    kind + 4 * edition (1 byte), base (7 bytes, microseconds since 1970), kept (3 or 4, seconds after base: the
            keys live at least until then), start (2 or 4), front (1), pages (2)
    entry   at (microseconds after base), total (units charged up to and with this entry, modulo 2^16 or 2^32)
    kind 0  entries of 5 + 2 bytes: limits up to 32,767 units and windows up to 2^38 us (3.1 days)
    kind 1  entries of 6 + 4 bytes: limits up to 2^31 - 1 units and windows up to 2^46 us (2.2 years)
    kind 2  a bucket (token_bucket), left by a policy that was one before a reload: it is carried over
  An entry's time reaches twice as far as the window, so that the base has to move no more than once a window.
  `start` is the running total before the first entry, so units in use = newest total - total before the first live
  entry, whatever the costs. An entry is live while now - at < span.

  To set a life costs as much as all else that a write does. So a key gets a life of half a window more than it needs
  (sliding_window_life), and most writes leave it as it is: a short log is appended to.

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

-- Weighs a charge of `cost` units against a state at `now`, in microseconds as `span`; KEYS[pages_at] are its pages.
-- It takes
-- itself with it, as a function is dearer to make with each local of the script that it uses. Returns
--   the units in use, the microseconds until more are free (0: all are), and until the cost fits, if it ever does;
--   if it does not fit, nil, the microseconds until nothing is in use, and how long the keys live at least;
--   if it fits (or at `forced_at` in any case) and `entries` is not 0, the charge to write: the new state, the release
--   after it, the state's life in milliseconds (0: as it is; nil: the state is to be appended to, not replaced), what a
--   refund needs (kind and edition, base, the time after it), the pages to drop, the page to add and its life.
local function weigh_window(weigh_window, value, key, pages_at, now, limit, span, cost, entries, forced_at)
  local wide = limit > 32767 or span > 274877906944
  if not value then
    local tag, form, base, life, kept = 0, '>BI7I3I2BI2I5I2', forced_at or now, nil, nil
    if wide then
      tag, form = 1, '>BI7I4I4BI2I6I4'
    end
    -- @include sliding_window_life
    return 0, 0, 0, struct.pack(form, tag, base, kept, 0, 0, 0, 0, cost), span, life, tag, base, 0, 0
  end

  -- A bucket's 23 bytes are as many as a head of kind 0 and an entry.
  local tag, base, kept, start, front, pages, first_at, first_total = struct.unpack('>BI7I3I2BI2I5I2', value)
  local entry, bytes, skip, modulus, reach, kind = '>I5I2', 7, 16, 65536, 549755813888, tag % 4
  if kind == 1 then
    entry, bytes, skip, modulus, reach = '>I6I4', 10, 19, 4294967296, 140737488355328
    tag, base, kept, start, front, pages, first_at, first_total = struct.unpack('>BI7I4I4BI2I6I4', value)
  elseif kind == 2 then
    -- @include window_from_bucket
    value = window_from_bucket(value, key, now, limit, span, wide, entries > 0)
    return weigh_window(weigh_window, value, key, pages_at, now, limit, span, cost, entries, forced_at)
  end
  local last, total = struct.unpack(entry, value, #value + 1 - bytes)
  if base + last > now or now - base > reach or (wide and kind == 0) then
    if entries > 0 then
      -- @include sliding_window_rewriting
      value = rewrite_window(value, key, KEYS[pages_at], now, span, wide and 1 or kind, math.ceil(span / entries))
      return weigh_window(weigh_window, value, key, pages_at, now, limit, span, cost, entries, forced_at)
    end
    base = math.min(base, now - last)
  end

  -- What happened at `dead` or before has left: look for the first live entry, in the front, the pages, the back. In
  -- the end it is at `position` of the part `text`, the first of `count` live ones there; `start` is the total before
  -- it, `gone` pages lie behind it, `pages` and `back` entries of the state before it.
  local dead = now - span - base
  local text, position, count, back, gone = value, skip + 1, (#value - skip) / bytes, 0, 0
  if pages > 0 then
    back, count = count - front, front
  end
  local used = 0
  if last <= dead then
    gone, pages, count, back = pages, 0, 0, 0
  else
    if first_at <= dead then
      start, position, count = first_total, position + bytes, count - 1
    end
    while first_at <= dead do
      if count > 0 then
        local charged
        first_at, charged = struct.unpack(entry, text, position)
        if first_at <= dead then
          start, position, count = charged, position + bytes, count - 1
        end
      elseif pages > 0 then
        text = redis.call('LINDEX', KEYS[pages_at], gone) or ''
        position, count, gone, pages = 1, #text / bytes, gone + 1, pages - 1
        if count > 0 then
          local at, charged = struct.unpack(entry, text, #text + 1 - bytes)
          if at <= dead then
            start, count = charged, 0
          end
        end
      else
        text, position, count, back = value, #value + 1 - back * bytes, back, 0
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
    return used, release, wait, nil, base + last + span - now, base + kept * 1000000 - now
  elseif entries == 0 then
    return used, release, 0
  elseif used == 0 then
    local form, life = kind == 1 and '>BI7I4I4BI2' or '>BI7I3I2BI2', nil
    tag, base = (tag + 4) % 256, forced_at or now
    -- @include sliding_window_life
    return 0, 0, 0, struct.pack(form, tag, base, kept, 0, 0, 0) .. struct.pack(entry, 0, cost),
      span, life, tag, base, 0, gone
  end

  local offset = now - base
  if forced_at then
    offset = math.max(forced_at - base, last)
  end
  -- @include sliding_window_page
  local merged = offset == last
  if not merged and count + pages * PAGE + back >= entries then
    local slot = math.ceil(span / entries)
    merged = math.floor(offset / slot) == math.floor(last / slot)
  end
  local newest, life, page = struct.pack(entry, offset, (total + cost) % modulus), 0, nil
  -- @include kept_longer
  if base + kept * 1000000 - now < span + KEPT_LONGER_MS * 1000 then
    -- @include sliding_window_life
  elseif not merged and text == value and position == skip + 1 and (pages > 0 and back or count - PAGE) < PAGE then
    -- As it is, with this charge at its end. Redis makes a string that is appended to twice as long as it needs to be:
    -- not the shortest, nor where the limit keeps it short.
    if #value > 44 and limit > 2 * PAGE then
      return used, release, 0, newest, release, nil, tag, base, offset
    end
    return used, release, 0, value .. newest, release, 0, tag, base, offset
  end
  -- A head and the live entries, of which this charge is the newest; when those before it make a page, that moves out.
  local live = string.sub(text, position, merged and text == value and -1 - bytes or -1)
  if text ~= value and back > 0 then
    live = live .. string.sub(value, -back * bytes, merged and -1 - bytes or -1)
  end
  if pages > 0 then
    front = count
    if back >= PAGE and not merged then
      local from = count * bytes
      page = string.sub(live, from + 1, from + PAGE * bytes)
      live = string.sub(live, 1, from) .. string.sub(live, from + PAGE * bytes + 1)
    end
  elseif count + back >= 2 * PAGE and not merged then
    -- There are no pages; what may lie there is left from a state that is gone, as a shorter window was kept for less.
    local middle = PAGE * bytes
    front, gone, page = PAGE, 65535, string.sub(live, middle + 1, 2 * middle)
    live = string.sub(live, 1, middle) .. string.sub(live, 2 * middle + 1)
  else
    front = 0
  end
  pages = page and pages + 1 or pages
  local page_life = (page or (life > 0 and pages > 0)) and math.ceil((base - now) / 1000) + (kept + 1) * 1000 or nil
  local form = kind == 1 and '>BI7I4I4BI2' or '>BI7I3I2BI2'
  return used, release, 0, struct.pack(form, tag, base, kept, start, front, pages) .. live .. newest,
    release, life, tag, base, offset, gone, page, page_life
end

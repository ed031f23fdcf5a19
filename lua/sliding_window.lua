--[[
  The sliding window: an exact log of admissions, packed; a ring of slots when it is long.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: sliding_window() -> weigh, charge: made when a charge needs them

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

local function sliding_window()

  -- The first of the entries low..count, after `skip` bytes of `text`, whose time (before nil) or whose units since
  -- `before` exceed `bound`; count + 1 if none does. Gallops, then bisects: few entries leave between two decisions.
  local function search(text, skip, kind, low, count, bound, before)
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

  -- Microseconds after base when `units` of the units in use, more than the first entry's perhaps, have left.
  local function leaving(log, kind, pages_key, units)
    local entry, bytes = '>I5I2', 7
    if kind == 1 then
      entry, bytes = '>I6I4', 10
    end
    local text, skip, low, count, page = log.text, log.skip, log.first, log.count, 0
    while true do
      local index = search(text, skip, kind, low, count, units - 1, log.start)
      if index <= count then
        return (struct.unpack(entry, text, skip + 1 + (index - 1) * bytes))
      end
      low = 1
      if page < log.pages then
        text = redis.call('LINDEX', pages_key, log.gone + page) or ''
        skip, count, page = 0, #text / bytes, page + 1
      elseif page == log.pages and log.back > 0 then
        text, skip, count, page = log.value, #log.value - log.back * bytes, log.back, page + 1
      else
        return log.last
      end
    end
  end

  -- What a state says at `now`. Returns a table for the other functions (nil: nothing was ever charged), the units in
  -- use, the microseconds until more units are free (0: all are), and until `cost` units fit.
  local function weigh(value, pages_key, now, limit, span, cost)
    if not value then
      return nil, 0, 0, 0
    end
    local entry, bytes, skip, modulus = '>I5I2', 7, 22, 65536
    local tag, base, start, front, pages, last, total = struct.unpack('>BI7I4BI2I5I2', value)
    local kind = tag % 2
    if kind == 1 then
      entry, bytes, skip, modulus = '>I6I4', 10, 25, 4294967296
      tag, base, start, front, pages, last, total = struct.unpack('>BI7I4BI2I6I4', value)
    end
    local shifted = base + last > now
    if shifted then
      base, tag = now - last, (tag + 2) % 256
    end
    local dead = now - span - base
    if last <= dead then
      return { tag = (tag + 2) % 256, gone = pages }, 0, 0, 0
    end

    -- The part that holds the first live entry: the front, a page, the back or, behind all of them, the newest.
    local text, count, back, gone = value, (#value - skip) / bytes, 0, 0
    if pages > 0 then
      back, count = count - front, front
    end
    local first, first_at = 1, last
    while true do
      if count > 0 then
        first_at = struct.unpack(entry, text, skip + 1)
        if first_at <= dead then
          local _
          first = search(text, skip, kind, 2, count, dead)
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
      if gone < pages then
        text = redis.call('LINDEX', pages_key, gone) or ''
        skip, count, gone = 0, #text / bytes, gone + 1
      elseif back > 0 then
        text, skip, count, back = value, #value - back * bytes, back, 0
      else
        count, first_at = 0, last
        break
      end
    end

    local used = (total - start) % modulus
    local log = {
      tag = tag, base = base, start = start, last = last, total = total, value = value, text = text, skip = skip,
      first = first, first_at = first_at, count = count, pages = pages - gone, gone = gone, back = back,
      shifted = shifted,
    }
    local release = base + first_at + span - now
    if used + 1 - limit > 1 then
      release = base + leaving(log, kind, pages_key, used + 1 - limit) + span - now
    end
    local surplus, wait = used + cost - limit, 0
    if surplus == 1 then
      wait = base + first_at + span - now
    elseif surplus > 1 and cost <= limit then
      wait = base + leaving(log, kind, pages_key, surplus) + span - now
    end
    return log, used, release, wait
  end

  -- Charges `cost` units at `at`, which is not before the newest entry. Returns the microseconds until more units are
  -- free, from `at`, if that has changed, and what a refund needs: tag, base and the time after it. The state lives for
  -- `keep_ms`: until its newest entry has left, and a second more, because Redis expires by a coarser clock.
  local function charge(key, pages_key, log, at, limit, span, cost, entries, keep_ms)
    local wide = limit > 32767 or span > 549755813888
    local base = log and log.base
    if not base then
      local tag = log and log.tag - log.tag % 2 or 0
      if log and log.gone > 0 then
        redis.call('UNLINK', pages_key)
      end
      local state = wide and struct.pack('>BI7I4BI2I6I4', tag + 1, at, 0, 0, 0, 0, cost)
        or struct.pack('>BI7I4BI2I5I2', tag, at, 0, 0, 0, 0, cost)
      redis.call('SET', key, state, 'PX', keep_ms)
      return span, tag + (wide and 1 or 0), at, 0
    end

    local tag, last, total, pages, offset = log.tag, log.last, log.total, log.pages, at - base
    local head, entry, bytes, modulus, reach = '>BI7I4BI2I5I2', '>I5I2', 7, 65536, 549755813888
    if tag % 2 == 1 then
      head, entry, bytes, modulus, reach = '>BI7I4BI2I6I4', '>I6I4', 10, 4294967296, 140737488355328
      wide = false
    end
    if wide or offset > reach then
      sliding_window_rewriting().rebase(key, pages_key, log, wide, keep_ms)
      log = weigh(redis.call('GET', key), pages_key, at, limit, span, cost)
      return charge(key, pages_key, log, at, limit, span, cost, entries, keep_ms)
    end

    local first, count, back, text, from = log.first, log.count, log.back, log.text, log.skip + 1
    from = from + (log.first - 1) * bytes
    local merged = offset == last
    if not merged and count - first + 2 + pages * PAGE + back >= entries then
      local slot = math.ceil(span / entries)
      merged = math.floor(offset / slot) == math.floor(last / slot)
    end
    local newest = merged and '' or struct.pack(entry, last, total)
    if log.gone > 0 then
      redis.call('LTRIM', pages_key, log.gone, -1)
    end

    -- The front entries, the page that leaves the string if it has become long enough, and what comes behind.
    local front, page, rest = 0, nil, nil
    if pages > 0 or back > 0 then
      front = count - first + 1
      rest = (back > 0 and string.sub(log.value, -back * bytes) or '') .. newest
      if pages > 0 and #rest == PAGE * bytes then
        page, rest = rest, ''
      end
      rest = string.sub(text, from, from + front * bytes - 1) .. rest
    elseif count > 0 then
      rest = string.sub(text, from) .. newest
      if #rest >= 2 * PAGE * bytes then
        local middle = PAGE * bytes
        front, page = PAGE, string.sub(rest, middle + 1, 2 * middle)
        rest = string.sub(rest, 1, middle) .. string.sub(rest, 2 * middle + 1)
      end
    else
      rest = newest
    end
    if page then
      redis.call('RPUSH', pages_key, page)
      redis.call('PEXPIRE', pages_key, keep_ms)
      pages = pages + 1
    end
    head = struct.pack(head, tag, base, log.start, pages > 0 and front or 0, pages, offset, (total + cost) % modulus)
    redis.call('SET', key, head .. rest, 'PX', keep_ms)
    return nil, tag, base, offset
  end

  return weigh, charge
end

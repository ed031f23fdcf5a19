--[[
  The sliding window: an exact log of admissions, packed; a ring of slots when it is long.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: window_weigh, window_wait, window_release, window_charge, window_refresh, window_refund

  The state is a string: a head of 15 bytes, then entries, oldest first.
    head    kind + 2 * edition (1 byte), base (7 bytes, microseconds since 1970), start (4 bytes), front (1), pages (2)
    entry   at (microseconds after base), total (units charged up to and with this entry, modulo 2^16 or 2^32)
    kind 0  entries of 5 + 2 bytes: limits up to 32,767 units and windows up to 2^39 us (6.3 days)
    kind 1  entries of 6 + 4 bytes: limits up to 2^31 - 1 units and windows up to 2^47 us (4.4 years)
  `start` is the running total before the first entry, so units in use = last total - total before the first live
  entry: one search, whatever the costs. An entry is live while now - at < span.

  Beyond 64 entries the middle moves out, 32 entries a page, to a list beside the state: the string keeps `front` entries
  that come before the `pages` and those that come after them. A decision then reads and writes some 300 bytes however
  long the log is, and touches the list once in 32 times.

  The ring: once `entries` entries are live, an admission in the same slot (span / entries long) as the newest entry is
  merged into it, at the later time. Units therefore leave at most one slot late and never early, and there are never
  more than 2 * entries + 2 entries.

  The clock never goes back for a key: when the server's does (a failover), the whole log is shifted back by moving its
  base, so that its newest entry happened just now. The edition changes whenever the base does: a refund is void then.
]]
local PAGE = 32

local function window_layout(kind)
  if kind == 0 then
    return '>I5I2', 7, 65536, 549755813888
  end
  return '>I6I4', 10, 4294967296, 140737488355328
end

-- The first of the entries low..count that begin in `value` after `skip` bytes whose time (before nil) or whose units
-- since `before` exceed `bound`; count + 1 if none does. Gallops, then bisects: few entries leave between two decisions.
local function window_search(value, skip, entry, bytes, low, count, bound, before, modulus)
  local probe, step, high = low, 1, count + 1
  while low < high do
    local at, total = struct.unpack(entry, value, skip + 1 + (probe - 1) * bytes)
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

-- What a state says at `now`: a table for the other functions. Its `used` are the units charged in the last `span`;
-- `shifted` tells that the server's clock has gone back, which is worth writing down even if nothing is charged.
local function window_weigh(value, pages_key, now, limit, span)
  if not value then
    return { now = now, limit = limit, span = span, used = 0, live = 0, edition = 0 }
  end
  local kind, base, start, front, pages = struct.unpack('>BI7I4BI2', value)
  local edition = (kind - kind % 2) / 2
  kind = kind % 2
  local entry, bytes, modulus = window_layout(kind)
  local last, total = struct.unpack(entry, value, #value - bytes + 1)
  local shifted = base + last > now
  if shifted then
    base, edition = now - last, (edition + 1) % 128
  end
  local dead = now - span - base
  if last <= dead then
    return { now = now, limit = limit, span = span, used = 0, live = 0, edition = (edition + 1) % 128, gone = pages }
  end
  -- The entries of the head part, first..count after `skip` bytes of `source`; behind them `pages`, and then `back` on.
  local source, skip, back = value, 15, (#value - 15) / bytes
  local count, gone = back, 0
  if pages > 0 then
    count = front
  end
  back = back - count
  local first, first_at = 1, nil
  if count > 0 then
    first_at = struct.unpack(entry, value, 16)
    if first_at <= dead then
      local _
      first = window_search(value, 15, entry, bytes, 2, count, dead)
      _, start = struct.unpack(entry, value, 16 + (first - 2) * bytes)
      first_at = first <= count and struct.unpack(entry, value, 16 + (first - 1) * bytes)
    end
  end
  while not first_at do
    -- The head part has left: the next page takes its place or, after the last, what comes behind.
    if gone < pages then
      source = redis.call('LINDEX', pages_key, gone) or ''
      skip, count, gone = 0, #source / bytes, gone + 1
    else
      source, skip, count, back = value, 15 + front * bytes, back, 0
    end
    first = window_search(source, skip, entry, bytes, 1, count, dead)
    if first > 1 then
      local _
      _, start = struct.unpack(entry, source, skip + 1 + (first - 2) * bytes)
    end
    first_at = first <= count and struct.unpack(entry, source, skip + 1 + (first - 1) * bytes)
  end
  return {
    now = now, limit = limit, span = span, used = (total - start) % modulus, shifted = shifted,
    value = value, kind = kind, edition = edition, base = base, start = start, last = last, total = total,
    source = source, skip = skip, first = first, first_at = first_at, count = count,
    pages = pages - gone, gone = gone, back = back, pages_key = pages_key,
    live = count - first + 1 + (pages - gone) * PAGE + back,
  }
end

-- Microseconds until `units` of the units in use have left.
local function window_leave(log, units)
  local at = log.first_at
  if units > 1 then
    local entry, bytes, modulus = window_layout(log.kind)
    local source, skip, low, count, page = log.source, log.skip, log.first, log.count, 0
    while true do
      local index = window_search(source, skip, entry, bytes, low, count, units - 1, log.start, modulus)
      if index <= count then
        at = struct.unpack(entry, source, skip + 1 + (index - 1) * bytes)
        break
      end
      low = 1
      if page < log.pages then
        source = redis.call('LINDEX', log.pages_key, log.gone + page) or ''
        skip, count, page = 0, #source / bytes, page + 1
      else
        source, count = log.value, log.back
        skip = #source - count * bytes
      end
    end
  end
  return log.base + at + log.span - log.now
end

-- Microseconds until `cost` units fit; the cost is not above the limit.
local function window_wait(log, cost)
  local surplus = log.used + cost - log.limit
  return surplus > 0 and window_leave(log, surplus) or 0
end

-- Microseconds until more units are free than now, after `cost` units were charged now (0: none were).
local function window_release(log, cost)
  if log.used == 0 then
    return cost > 0 and log.span or 0
  end
  return window_leave(log, log.used + cost + 1 - log.limit)
end

-- Writes a state; `body` holds its entries, `front` of them before the pages. It lives until its newest entry has left,
-- and a second more: Redis expires by a coarser clock.
local function window_store(key, log, front, body)
  local head = struct.pack('>BI7I4BI2', log.kind + 2 * log.edition, log.base, log.start, front, log.pages)
  redis.call('SET', key, head .. body, 'PX', math.ceil(log.span / 1000) + 1000)
end

-- Drops the pages that have left. Returns the bytes of the entries before the remaining pages, their number, and the
-- bytes after, less `cut` at the end.
local function window_take(log, cut)
  local _, bytes = window_layout(log.kind)
  if log.gone > 0 then
    redis.call('LTRIM', log.pages_key, log.gone, -1)
    log.gone = 0
  end
  local from = log.skip + 1 + (log.first - 1) * bytes
  if log.back == 0 then
    return string.sub(log.source, from, -1 - cut), log.live, ''
  end
  local back = string.sub(log.value, #log.value - log.back * bytes + 1, -1 - cut)
  return string.sub(log.source, from, log.skip + log.count * bytes), log.count - log.first + 1, back
end

-- Writes all entries, `body`, as a state and its pages.
local function window_store_all(key, pages_key, log, body)
  local _, bytes = window_layout(log.kind)
  local page, front, from = PAGE * bytes, 0, 1
  redis.call('UNLINK', pages_key)
  log.pages = 0
  if #body > 2 * page then
    front, from = PAGE, page + 1
    while #body - from + 1 > page do
      redis.call('RPUSH', pages_key, string.sub(body, from, from + page - 1))
      log.pages, from = log.pages + 1, from + page
    end
    redis.call('PEXPIRE', pages_key, math.ceil(log.span / 1000) + 1000)
  end
  window_store(key, log, front, (front > 0 and string.sub(body, 1, page) or '') .. string.sub(body, from))
end

-- All live entries as one string, pages included.
local function window_body(log)
  local pages = log.pages > 0 and redis.call('LRANGE', log.pages_key, log.gone, -1) or {}
  local head, _, back = window_take(log, 0)
  return head .. table.concat(pages) .. back
end

-- Notes that the clock has gone back.
local function window_refresh(key, log)
  if log.shifted then
    local head, front, back = window_take(log, 0)
    window_store(key, log, front, head .. back)
  end
end

-- The live entries written anew, after the first one as the base, in the kind that the policy needs.
local function window_rebuild(key, pages_key, log, kind)
  local entry, bytes, modulus = window_layout(log.kind)
  local new_entry = window_layout(kind)
  local body, parts = window_body(log), {}
  for index = 0, #body / bytes - 1 do
    local at, total = struct.unpack(entry, body, 1 + index * bytes)
    parts[index + 1] = struct.pack(new_entry, at - log.first_at, (total - log.start) % modulus)
  end
  local now, limit, span = log.now, log.limit, log.span
  log.kind, log.edition, log.base, log.start = kind, (log.edition + 1) % 128, log.base + log.first_at, 0
  window_store_all(key, pages_key, log, table.concat(parts))
  return window_weigh(redis.call('GET', key), pages_key, now, limit, span)
end

-- Charges `cost` units at `at`, which is not before the newest entry. Returns what a refund needs: the edition, the base
-- and the time after it.
local function window_charge(key, pages_key, log, cost, at, entries)
  local kind = (log.limit > 32767 or log.span > 549755813888) and 1 or 0
  local keep_ms = math.ceil(log.span / 1000) + 1000
  if log.live == 0 then
    if log.gone and log.gone > 0 then
      redis.call('UNLINK', pages_key)
    end
    local head = struct.pack('>BI7I4BI2', kind + 2 * log.edition, at, 0, 0, 0)
    redis.call('SET', key, head .. struct.pack((window_layout(kind)), 0, cost), 'PX', keep_ms)
    return log.edition, at, 0
  end
  local entry, bytes, modulus, reach = window_layout(log.kind)
  if kind > log.kind or at - log.base > reach then
    log = window_rebuild(key, pages_key, log, math.max(kind, log.kind))
    entry, bytes, modulus = window_layout(log.kind)
  end
  local offset, cut = at - log.base, 0
  if offset == log.last then
    cut = bytes
  elseif log.live >= entries then
    local slot = math.ceil(log.span / entries)
    if math.floor(offset / slot) == math.floor(log.last / slot) then
      cut = bytes
    end
  end
  local head, front, back = window_take(log, cut)
  local newest = struct.pack(entry, offset, (log.total + cost) % modulus)
  if log.pages == 0 then
    head, front, back = head .. back, 0, ''
    if #head == 2 * PAGE * bytes then
      redis.call('RPUSH', pages_key, string.sub(head, PAGE * bytes + 1))
      redis.call('PEXPIRE', pages_key, keep_ms)
      head, front, log.pages = string.sub(head, 1, PAGE * bytes), PAGE, 1
    end
  elseif #back == PAGE * bytes then
    redis.call('RPUSH', pages_key, back)
    redis.call('PEXPIRE', pages_key, keep_ms)
    back, log.pages = '', log.pages + 1
  end
  window_store(key, log, front, head .. back .. newest)
  return log.edition, log.base, offset
end

-- Takes back `cost` units charged at `offset` after `base`. Returns the units given back: none if they have left the
-- window, or if the log is not the one they were charged to (a reset, a clock that went back).
local function window_refund(key, pages_key, log, cost, edition, base, offset)
  if log.live == 0 or log.edition ~= edition or log.base ~= base or offset < log.first_at then
    return 0
  end
  local entry, bytes, modulus = window_layout(log.kind)
  local body = window_body(log)
  local count = #body / bytes
  local index = window_search(body, 0, entry, bytes, 1, count, offset - 1)
  if index > count then
    return 0
  end
  local before = log.start
  if index > 1 then
    local _
    _, before = struct.unpack(entry, body, 1 + (index - 2) * bytes)
  end
  local parts = { string.sub(body, 1, (index - 1) * bytes) }
  for each = index, count do
    local at, total = struct.unpack(entry, body, 1 + (each - 1) * bytes)
    total = (total - cost) % modulus
    if each > index or total ~= before then
      parts[#parts + 1] = struct.pack(entry, at, total)
    end
  end
  if log.used == cost then
    redis.call('UNLINK', key, pages_key)
  else
    window_store_all(key, pages_key, log, table.concat(parts))
  end
  return cost
end

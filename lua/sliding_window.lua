--[[
  The sliding window: an exact log of admissions packed in one string, which turns into a ring of slots when it is long.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: window_weigh, window_wait, window_release, window_charge, window_refund

  The value: a head of 12 bytes, then entries, oldest first.
    head    kind + 2 * edition (1 byte), base (7 bytes, microseconds since 1970), start (4 bytes)
    entry   at (microseconds after base), total (units charged up to and with this entry, modulo 2^16 or 2^32)
    kind 0  entries of 5 + 2 bytes: limits up to 32,767 units and windows up to 2^39 us (6.3 days)
    kind 1  entries of 6 + 4 bytes: limits up to 2^31 - 1 units and windows up to 2^47 us (4.4 years)
  `start` is the running total before the first entry, so units in use = last total - total before the first live
  entry: one search, whatever the costs. An entry is live while now - at < span.

  The ring: once `entries` entries are live, an admission in the same slot (span / entries long) as the newest entry is
  merged into it, at the later time. Units therefore leave at most one slot late and never early, and there are never
  more than 2 * entries + 2 entries.

  The clock never goes back for a key: when the server's does (a failover), the whole log is shifted back by moving its
  base, so that its newest entry happened just now.
]]
local function window_layout(kind)
  if kind == 0 then
    return '>I5I2', 7, 65536, 549755813888
  end
  return '>I6I4', 10, 4294967296, 140737488355328
end

-- The first index, not before `low`, whose time (units nil) or whose units since `before` exceed `bound`; count + 1 if
-- none does. Gallops from `low`, then bisects: few entries leave between two decisions.
local function window_search(value, kind, low, count, bound, before)
  local entry, bytes, modulus = window_layout(kind)
  local probe, step, high = low, 1, count + 1
  while low < high do
    local at, total = struct.unpack(entry, value, 13 + (probe - 1) * bytes)
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

-- What a key's value says at `now`: a table for the other functions. Its `used` are the units charged in the last `span`,
-- `shifted` tells that the server's clock has gone back, which is worth writing down even if nothing is charged.
local function window_weigh(value, now, limit, span)
  if not value then
    return { now = now, limit = limit, span = span, used = 0, live = 0, edition = 0 }
  end
  local kind, base, start = struct.unpack('>BI7I4', value)
  local edition = math.floor(kind / 2)
  kind = kind % 2
  local entry, bytes, modulus = window_layout(kind)
  local last, total = struct.unpack(entry, value, #value - bytes + 1)
  local shifted = base + last > now
  if shifted then
    base, edition = now - last, (edition + 1) % 128
  end
  local dead = now - span - base
  if last <= dead then
    return { now = now, limit = limit, span = span, used = 0, live = 0, edition = (edition + 1) % 128 }
  end
  local count = (#value - 12) / bytes
  local first, first_at = 1, struct.unpack(entry, value, 13)
  if first_at <= dead then
    local _
    first = window_search(value, kind, 2, count, dead)
    _, start = struct.unpack(entry, value, 13 + (first - 2) * bytes)
    first_at = struct.unpack(entry, value, 13 + (first - 1) * bytes)
  end
  return {
    now = now, limit = limit, span = span, used = (total - start) % modulus, live = count - first + 1,
    value = value, kind = kind, edition = edition, base = base, start = start, count = count, shifted = shifted,
    first = first, first_at = first_at, last = last, total = total,
  }
end

-- Microseconds until `units` of the units in use have left.
local function window_leave(log, units)
  local at = log.first_at
  if units > 1 then
    local entry, bytes = window_layout(log.kind)
    local index = window_search(log.value, log.kind, log.first, log.count, units - 1, log.start)
    at = struct.unpack(entry, log.value, 13 + (index - 1) * bytes)
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

-- The live entries written anew, after their first one as the base, in the kind that the policy needs.
local function window_rebuild(log, kind)
  local entry, bytes, modulus = window_layout(log.kind)
  local new_entry = window_layout(kind)
  log.edition = (log.edition + 1) % 128
  local parts = { struct.pack('>BI7I4', kind + 2 * log.edition, log.base + log.first_at, 0) }
  for index = log.first, log.count do
    local at, total = struct.unpack(entry, log.value, 13 + (index - 1) * bytes)
    parts[#parts + 1] = struct.pack(new_entry, at - log.first_at, (total - log.start) % modulus)
  end
  log.value, log.kind, log.base, log.start = table.concat(parts), kind, log.base + log.first_at, 0
  log.first, log.first_at, log.count, log.last, log.total = 1, 0, log.live, log.last - log.first_at, log.used
end

-- Writes the live entries up to a byte (nil: all), and `tail` behind them. The key lives until its newest entry has
-- left, and a second more: Redis expires by a coarser clock.
local function window_store(key, log, last_byte, tail)
  local _, bytes = window_layout(log.kind)
  local head = struct.pack('>BI7I4', log.kind + 2 * log.edition, log.base, log.start)
  local body = string.sub(log.value, 13 + (log.first - 1) * bytes, last_byte or -1)
  redis.call('SET', key, head .. body .. tail, 'PX', math.ceil(log.span / 1000) + 1000)
end

-- Charges `cost` units at `at`, which is not before the newest entry. Returns what a refund needs: the
-- edition, the base and the time after it.
local function window_charge(key, log, cost, at, entries)
  local kind = (log.limit > 32767 or log.span > 549755813888) and 1 or 0
  if log.live == 0 then
    local entry = struct.pack('>BI7I4', kind + 2 * log.edition, at, 0) .. struct.pack((window_layout(kind)), 0, cost)
    redis.call('SET', key, entry, 'PX', math.ceil(log.span / 1000) + 1000)
    return log.edition, at, 0
  end
  local entry, bytes, modulus, reach = window_layout(log.kind)
  if kind > log.kind or at - log.base > reach then
    kind = math.max(kind, log.kind)
    window_rebuild(log, kind)
    entry, bytes, modulus = window_layout(kind)
  end
  local offset, last_byte = at - log.base, nil
  if offset == log.last then
    last_byte = -bytes - 1
  elseif log.live >= entries then
    local slot = math.ceil(log.span / entries)
    if math.floor(offset / slot) == math.floor(log.last / slot) then
      last_byte = -bytes - 1
    end
  end
  window_store(key, log, last_byte, struct.pack(entry, offset, (log.total + cost) % modulus))
  return log.edition, log.base, offset
end

-- Takes back `cost` units charged at `offset` after `base`. Returns the units given back: none if they have left the
-- window, or if the log is not the one they were charged to (a reset, a clock that went back).
local function window_refund(key, log, cost, edition, base, offset)
  if log.live == 0 or log.edition ~= edition or log.base ~= base then
    return 0
  end
  local entry, bytes, modulus = window_layout(log.kind)
  local index = window_search(log.value, log.kind, log.first, log.count, offset - 1)
  if index > log.count or offset < log.first_at then
    return 0
  end
  local before = log.start
  if index > log.first then
    local _
    _, before = struct.unpack(entry, log.value, 13 + (index - 2) * bytes)
  end
  local parts = {}
  for each = index, log.count do
    local at, total = struct.unpack(entry, log.value, 13 + (each - 1) * bytes)
    total = (total - cost) % modulus
    if each > index or total ~= before then
      parts[#parts + 1] = struct.pack(entry, at, total)
    end
  end
  if log.used == cost then
    redis.call('UNLINK', key)
  else
    window_store(key, log, 12 + (index - 1) * bytes, table.concat(parts))
  end
  return cost
end

--[[
  What rarely happens to the log of a sliding window: it is written anew as a whole.

  Part of: charge_arrears, decide_charges, peek_charges, refund_charges
  Gives: sliding_window_rewriting() -> a table of body, store_all, refresh, rebase: made when it is needed
]]
local function sliding_window_rewriting()
  -- All live entries as one string (the pages leave their list), their format and the bytes of one.
  local function body(pages_key, log)
    local entry, bytes = '>I5I2', 7
    if log.tag % 2 == 1 then
      entry, bytes = '>I6I4', 10
    end
    local pages = ''
    if log.pages + log.gone > 0 then
      pages = table.concat(redis.call('LRANGE', pages_key, log.gone, -1))
      redis.call('UNLINK', pages_key)
    end
    local back = log.back > 0 and string.sub(log.value, -log.back * bytes) or ''
    local front = string.sub(log.text, log.skip + 1 + (log.first - 1) * bytes, log.skip + log.count * bytes)
    return front .. pages .. back .. struct.pack(entry, log.last, log.total), entry, bytes
  end

  -- Writes `entries`, as packed as the log's kind wants them, as a state and its pages.
  local function store_all(key, pages_key, log, entries, keep_ms)
    local entry, bytes = '>I5I2', 7
    if log.tag % 2 == 1 then
      entry, bytes = '>I6I4', 10
    end
    log.last, log.total = struct.unpack(entry, entries, #entries - bytes + 1)
    local older, page, front = string.sub(entries, 1, -bytes - 1), PAGE * bytes, 0
    log.pages = 0
    if #older >= 2 * page then
      local from = page + 1
      while #older - from + 1 >= page do
        redis.call('RPUSH', pages_key, string.sub(older, from, from + page - 1))
        log.pages, from = log.pages + 1, from + page
      end
      redis.call('PEXPIRE', pages_key, keep_ms)
      front, older = PAGE, string.sub(older, 1, page) .. string.sub(older, from)
    end
    local format = bytes == 7 and '>BI7I4BI2I5I2' or '>BI7I4BI2I6I4'
    local head = struct.pack(format, log.tag, log.base, log.start, front, log.pages, log.last, log.total)
    redis.call('SET', key, head .. older, 'PX', keep_ms)
  end

  -- Notes that the clock has gone back.
  local function refresh(key, pages_key, log, keep_ms)
    store_all(key, pages_key, log, (body(pages_key, log)), keep_ms)
  end

  -- All entries anew: after the first one as the base, and in the wide kind if the policy needs it.
  local function rebase(key, pages_key, log, wide, keep_ms)
    local old, entry, bytes = body(pages_key, log)
    local modulus = entry == '>I5I2' and 65536 or 4294967296
    local new_entry, parts = wide and '>I6I4' or entry, {}
    for offset = 1, #old, bytes do
      local time, total = struct.unpack(entry, old, offset)
      parts[#parts + 1] = struct.pack(new_entry, time - log.first_at, (total - log.start) % modulus)
    end
    log.tag = (log.tag + (wide and 3 or 2)) % 256
    log.base, log.start = log.base + log.first_at, 0
    store_all(key, pages_key, log, table.concat(parts), keep_ms)
  end

  return { body = body, store_all = store_all, refresh = refresh, rebase = rebase }
end

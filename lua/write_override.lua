--[[
  Sets or ends overrides of a subject's limits, and drops all that have ended.

  KEYS:
    1              the overrides, a hash
  ARGV:
    1              the word by which processes see that something has changed
    2              how many there may be
    3              units, 0: not limited, or -1 to end what is named
    4              milliseconds until it ends, and for the shortest life of the word
    5..n           fields: subject and policy
  Returns:
    how many of the fields were set, or were there to end; -1 if there would be too many
]]
local overrides_key, word, most = KEYS[1], ARGV[1], tonumber(ARGV[2])
local limit, duration = tonumber(ARGV[3]), tonumber(ARGV[4])

-- @include server_clock

local now_ms = math.floor(now / 1000)
local latest, count, known = now_ms + duration, 0, {}
local found = redis.call('HGETALL', overrides_key)
for index = 1, #found, 2 do
  local field, value = found[index], found[index + 1]
  if field ~= 'word' then
    local ends = tonumber(string.match(value, ' (%d+)$'))
    if ends <= now_ms then
      redis.call('HDEL', overrides_key, field)
    else
      latest, count, known[field] = math.max(latest, ends), count + 1, true
    end
  end
end

local changed = 0
for index = 5, #ARGV do
  local field = ARGV[index]
  if limit < 0 then
    changed = changed + redis.call('HDEL', overrides_key, field)
  else
    count = count + (known[field] and 0 or 1)
    if count > most then
      return -1
    end
    redis.call('HSET', overrides_key, field, string.format('%.0f %.0f', limit, now_ms + duration))
    changed = changed + 1
  end
end
redis.call('HSET', overrides_key, 'word', word)
redis.call('PEXPIREAT', overrides_key, string.format('%.0f', latest + 1000))
return changed

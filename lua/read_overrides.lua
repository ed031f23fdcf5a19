--[[
  Reads the overrides of subjects' limits that have not ended.

  KEYS:
    1              the overrides, a hash
  ARGV:
    none
  Returns:
    the word that changes with them ('' if there are none), then three for each:
      field        subject and policy
      limit        units; 0: not limited
      rest         milliseconds until it ends
]]
local overrides_key = KEYS[1]

-- @include server_clock

local found = redis.call('HGETALL', overrides_key)
local reply = { '' }
for index = 1, #found, 2 do
  local field, value = found[index], found[index + 1]
  if field == 'word' then
    reply[1] = value
  else
    local limit, ends = string.match(value, '^(%d+) (%d+)$')
    local rest = math.floor(ends - now / 1000)
    if rest > 0 then
      table.insert(reply, field)
      table.insert(reply, tonumber(limit))
      table.insert(reply, rest)
    end
  end
end
return reply

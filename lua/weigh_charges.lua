--[[
  Weighs every charge of a request at one instant.

  Part of: decide_charges, peek_charges
  Gives: weigh_charges(count, values, entries) -> reply, writes

  KEYS and ARGV are those of decide_charges, values what is in KEYS. The reply is the answer if nothing is charged; writes
  are what the algorithms want to be written for each charge that fits, if `entries` is given.
]]
local function weigh_charges(count, values, entries)
  local now, reply, writes = server_now(), { 1, 0, 0, 0, 0 }, {}
  for index = 1, count do
    local at, key = index * 4 - 2, KEYS[index]
    local algorithm, limit, window_ms, cost, subject, enforced = struct.unpack('>BI4I6I4BB', ARGV[index + 2])
    local used, release, wait, write
    if algorithm == 0 then
      used, release, wait, write = weigh_window(
        values[index], key, KEYS[#KEYS - count + index], now, limit, window_ms * 1000, cost, entries)
    else
      used, release, wait, write = weigh_bucket(values[index], now, limit, window_ms * 1000, cost, entries)
    end
    local code, remaining = 1, limit - used
    if values[count + subject] then
      code, remaining, wait = 3, 0, redis.call('PTTL', KEYS[count + subject]) * 1000
    elseif cost > limit then
      code, wait = 2, -1
    elseif wait > 0 then
      code = 0
    else
      writes[index] = write
    end
    if code ~= 1 and enforced == 1 then
      reply[1] = 0
    end
    reply[at] = code
    reply[at + 1] = remaining > 0 and math.floor(remaining) or 0
    reply[at + 2] = release
    reply[at + 3] = wait
  end
  return reply, writes
end

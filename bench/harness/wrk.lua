-- Sends one prepared request after the other, and prints wrk's figures as JSON.
--
-- Environment:
--   BENCH_REQUESTS  a file: whole requests, each preceded by its length in bytes and a line break
-- What stands at @unique-in-each-request@ is replaced by something else each time.
local requests, count, at, sent = {}, 0, 0, 0
local process

function init(_)
  local random = assert(io.open("/dev/urandom", "rb"))
  process = random:read(4):gsub(".", function(byte) return string.format("%02x", byte:byte()) end)
  random:close()
  local file = assert(io.open(os.getenv("BENCH_REQUESTS"), "rb"))
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    count = count + 1
    requests[count] = file:read(length)
  end
  file:close()
end

function request()
  at = at % count + 1
  sent = sent + 1
  return (requests[at]:gsub("@unique%-in%-each%-request@", string.format("%s%016x", process, sent)))
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end

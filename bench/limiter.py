"""The limiters compared: server time and memory of a decision, and the share of requests admitted.

Each runs on a Redis of its own, one policy at a time, every client asking for 1.25 times its limit, at random times.
Where a script takes its time from the server, that is simulated, so that hours pass in seconds; a command that reads
the simulated time stands for TIME. Time is what Redis itself counts for EVALSHA, the least of the rounds.

    python bench/limiter.py [--redis PATH] [--rounds N]
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from server.ratelimit.policies import Algorithm, Charge, Policy
from server.ratelimit.scripts import decide_charges
from server.stores.scripts import Script, load_script
from server.tools.embedded import redis_server

PEERS = Path(__file__).parent / "peers"
CLOCK = "{clock}"
START_US = 1_790_000_000_000_000
CASES = ((10, 60), (60, 60), (1000, 3600), (10_000, 3600), (1_000_000, 86_400))
SAMPLE = 100_000
WINDOWS = 2
BATCH = 500
LOG_ENTRIES = 1024

Call = tuple[int, *tuple[Any, ...]]  # number of keys, keys, arguments
Ask = Callable[[int, int], Call]


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one limiter in one case."""

    microseconds: float
    bytes_per_client: float
    share: float


def simulated(source: str) -> str:
    """The script with the server's time replaced by the simulated one."""
    clock = load_script("server_clock").source.decode()
    source = source.replace(
        clock, "local function server_now()\n  return tonumber(redis.call('GET', '{clock}'))\nend\n"
    )
    return source.replace(
        "local time = redis.call('TIME')\n",
        "local clock = redis.call('GET', '{clock}')\n"
        "local time = { string.sub(clock, 1, -7), string.sub(clock, -6) }\n",
    )


class Recorder:
    """Takes a script call instead of Redis, and keeps it."""

    def __init__(self) -> None:
        self.call: Call = (0,)

    async def run_script(
        self, _script: Script, keys: Any, args: Any, *, deadline_ms: float | None = None
    ) -> list[int]:
        """Keep the call's keys and arguments."""
        assert deadline_ms is None
        self.call = (len(keys), *keys, *args)
        return [1, 1, 1, 1, 0]


def ours(limit: int, window: int, algorithm: Algorithm) -> Ask:
    """The calls of this project's limiter."""
    policy, recorder, calls = Policy("bench", limit, window * 1000, algorithm), Recorder(), dict[int, Call]()

    def ask(client: int, _number: int) -> Call:
        if client not in calls:
            charges = [Charge(policy, "bench", f"user:{client}")]
            coroutine = decide_charges(recorder, charges=charges, log_entries=LOG_ENTRIES)
            for _ in iter(lambda: next(coroutine.__await__(), None), None):
                raise AssertionError("the recorder never waits")
            calls[client] = recorder.call
        return calls[client]

    return ask


def arrivals(limit: int, window: int, clients: int) -> Iterator[tuple[int, int]]:
    """(time in microseconds, client): each client at random, 1.25 times its limit in a window."""
    chance = random.Random(7)
    mean = window * 1e6 / (1.25 * limit * clients)
    now = float(START_US)
    while True:
        now += chance.expovariate(1 / mean)
        yield int(now), chance.randrange(clients)


def exact_share(limit: int, window: int, clients: int, warm: int, count: int) -> float:
    """What an exact limiter admits of the measured requests."""
    logs: list[deque[int]] = [deque() for _ in range(clients)]
    admitted = 0
    for number, (now, client) in zip(range(count), arrivals(limit, window, clients), strict=False):
        log = logs[client]
        while log and log[0] <= now - window * 1_000_000:
            log.popleft()
        if len(log) < limit:
            log.append(now)
            admitted += number >= warm
    return admitted / (count - warm)


def sizes(limit: int) -> tuple[int, int, int]:
    """(clients, requests before measuring, requests in all)."""
    clients = max(1, min(200, SAMPLE // (4 * limit)))
    in_a_window = int(1.25 * limit * clients)
    if in_a_window > SAMPLE:
        warm = in_a_window // 2 // BATCH * BATCH
        return clients, warm, warm + SAMPLE
    warm = -(-in_a_window // BATCH) * BATCH
    return clients, warm, warm + in_a_window * WINDOWS


def measure(client: redis.Redis, source: str, ask: Ask, limit: int, window: int) -> Row:
    """Run one limiter through one case."""
    client.flushall()
    clients, warm, count = sizes(limit)
    sha = client.script_load(simulated(source))
    admitted = asked = 0
    spent = 0.0
    stream = arrivals(limit, window, clients)
    for start in range(0, count, BATCH):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(count, start + BATCH)):
            now, who = next(stream)
            pipeline.set(CLOCK, now)
            keys, *operands = ask(who, number)
            pipeline.evalsha(sha, keys, *operands)
        client.config_resetstat()
        replies = pipeline.execute()[1::2]
        if start >= warm:
            statistics = client.info("commandstats")["cmdstat_evalsha"]
            spent += statistics["usec"]
            asked += len(replies)
            admitted += sum(bool(reply[0] if isinstance(reply, list) else reply) for reply in replies)
    memory = sum(
        client.memory_usage(key, samples=0) or 0
        for key in client.scan_iter(count=1000)
        if key != CLOCK.encode()
    )
    return Row(spent / asked, memory / clients, admitted / asked)


def contenders(limit: int, window: int) -> Iterator[tuple[str, str, Ask]]:
    """(name, script, how it is asked)."""
    decide = load_script("decide_charges").source.decode()
    span = window * 1_000_000
    yield "mastery, sliding window", decide, ours(limit, window, "sliding_window")
    yield "mastery, token bucket", decide, ours(limit, window, "token_bucket")
    zset = (PEERS / "zset_log.lua").read_text()
    yield "log in a ZSET", zset, lambda who, number: (1, f"zset:{who:012d}", limit, span, f"{number:016x}")
    two = (PEERS / "two_buckets.lua").read_text()
    yield "two buckets", two, lambda who, _number: (1, f"two:{{{who:012d}}}:", limit, span)
    yield from limits_library(limit, window)


def limits_library(limit: int, window: int) -> Iterator[tuple[str, str, Ask]]:
    """The two scripts of the library `limits`; its clients pass the time along."""
    found = importlib.util.find_spec("limits")
    if found is None or found.origin is None:
        return
    scripts = Path(found.origin).parent / "resources" / "redis" / "lua_scripts"
    log = (scripts / "acquire_moving_window.lua").read_text()
    in_seconds = log.replace("tonumber(ARGV[1])", "redis.call('GET', '{clock}') / 1e6", 1)
    yield "limits, moving window", in_seconds, lambda who, _: (1, f"LIMITS:{who:012d}", 0, limit, window, 1)


def missing_peers() -> list[str]:
    """Libraries that are compared when they are installed."""
    return [name for name in ("limits", "throttled") if importlib.util.find_spec(name) is None]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", type=Path, help="a redis-server; the embedded one by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cases", type=int, default=len(CASES), help="how many of the limits, from the least"
    )
    options = parser.parse_args()
    for name in missing_peers():
        print(f"not installed, left out: {name}", file=sys.stderr)
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder), binary=options.redis, options=('save ""',)) as server,
    ):
        client = redis.Redis.from_url(server.url)
        version = client.info("server")["redis_version"]
        print(f"Redis {version}: server time per decision · bytes per client · share admitted\n")
        print(
            "| limiter | "
            + " | ".join(f"L={limit} / {window} s" for limit, window in CASES[: options.cases])
            + " |"
        )
        print("|---" * (1 + options.cases) + "|")
        table: dict[str, list[str]] = {"exact answer": []}
        for limit, window in CASES[: options.cases]:
            table["exact answer"].append(f"{exact_share(limit, window, *sizes(limit)):.3f}")
            best: dict[str, Row] = {}
            for _ in range(options.rounds):
                for name, source, ask in contenders(limit, window):
                    row = measure(client, source, ask, limit, window)
                    if name not in best or row.microseconds < best[name].microseconds:
                        best[name] = row
            for name, row in best.items():
                table.setdefault(name, []).append(
                    f"{row.microseconds:.1f} µs · {row.bytes_per_client:.0f} B · {row.share:.3f}"
                )
        for name, cells in table.items():
            print(f"| {name} | " + " | ".join(cells) + " |")
        client.close()


if __name__ == "__main__":
    main()

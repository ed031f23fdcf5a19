"""The limiters compared: server time and memory of a decision, and the share of requests admitted.

Every client asks for 1.25 times its limit, at random times. What a script takes from the server's clock is simulated,
so that hours pass in seconds: a command that reads the simulated time stands for TIME. Time is what Redis itself counts
for EVALSHA, the least of the rounds. Libraries are compared when installed: `pip install limits throttled-py`.

    python bench/limiter.py [--redis PATH] [--rounds N] [--cases N]
"""

from __future__ import annotations

import argparse
import importlib
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
GET_CLOCK = "redis.call('GET', '{clock}')"
START_US = 1_790_000_000_000_000
SAMPLE = 25_000
WINDOWS = 2
BATCH = 500
LOG_ENTRIES = 1024

Call = tuple[int, *tuple[Any, ...]]  # number of keys, keys, arguments
Ask = Callable[[int, int, int], Call]  # client, number of the request, microseconds


@dataclass(frozen=True, slots=True)
class Case:
    """A policy to compare under: `limit` units in `window` seconds, each request costing `cost`."""

    limit: int
    window: int
    cost: int = 1

    @property
    def name(self) -> str:
        """The head of its column."""
        return f"L={self.limit} / {self.window} s" + (f", cost {self.cost}" if self.cost > 1 else "")

    def sizes(self) -> tuple[int, int, int]:
        """(clients, requests before measuring, requests in all)."""
        requests = self.limit // self.cost
        clients = max(1, min(200, SAMPLE // requests))
        in_a_window = -(-int(1.25 * requests * clients) // BATCH) * BATCH
        return clients, in_a_window, in_a_window * (1 + WINDOWS)

    def arrivals(self) -> Iterator[tuple[int, int]]:
        """(microseconds, client), at random."""
        chance = random.Random(7)
        clients, _, _ = self.sizes()
        a_second = 1.25 * self.limit / self.cost * clients / self.window
        now = START_US / 1e6
        while True:
            now += chance.expovariate(a_second)
            yield int(now * 1e6), chance.randrange(clients)

    def exact_share(self) -> float:
        """What an exact limiter admits of the measured requests."""
        clients, warm, count = self.sizes()
        logs: list[deque[int]] = [deque() for _ in range(clients)]
        admitted = 0
        for number, (now, client) in zip(range(count), self.arrivals(), strict=False):
            log = logs[client]
            while log and log[0] <= now - self.window * 1_000_000:
                log.popleft()
            if len(log) < self.limit // self.cost:
                log.append(now)
                admitted += number >= warm
        return admitted / (count - warm)


CASES = (Case(10, 60), Case(60, 60), Case(1000, 3600), Case(10_000, 3600), Case(1_000_000, 86_400, 50))


@dataclass(frozen=True, slots=True)
class Contender:
    """A limiter: its script, how that is asked, and what its reply means."""

    name: str
    source: str
    ask: Ask
    admits: Callable[[Any], bool] = lambda reply: bool(reply[0])
    weighs: bool = False
    simulated: bool = True


class Recorder:
    """Takes a script call instead of Redis, and keeps it."""

    call: Call = (0,)

    async def run_script(self, _: Script, keys: Any, args: Any, *, deadline_ms: float | None = None) -> bytes:
        """Keep the call's keys and arguments."""
        assert deadline_ms is None
        self.call = (len(keys), *keys, *args)
        return b"\1"


def ours(case: Case, algorithm: Algorithm) -> Ask:
    """The calls of this project's limiter."""
    policy = Policy("bench", case.limit, case.window * 1000, algorithm)
    recorder, calls = Recorder(), dict[int, Call]()

    def ask(client: int, _number: int, _now: int) -> Call:
        if client not in calls:
            charges = [Charge(policy, "bench", f"user:{client}", case.cost)]
            for _ in decide_charges(recorder, charges=charges, log_entries=LOG_ENTRIES).__await__():
                raise AssertionError("the recorder never waits")
            calls[client] = recorder.call
        return calls[client]

    return ask


def contenders(case: Case) -> Iterator[Contender]:
    """Everyone who is there."""
    decide = load_script("decide_charges").source.decode()
    clock = load_script("server_clock").source.decode()
    decide = decide.replace(clock, with_clock(clock, "time"))
    yield Contender("mastery, sliding window", decide, ours(case, "sliding_window"), weighs=True)
    yield Contender("mastery, token bucket", decide, ours(case, "token_bucket"), weighs=True)
    span = case.window * 1_000_000
    yield Contender(
        "log in a ZSET",
        with_clock((PEERS / "zset_log.lua").read_text(), "time"),
        lambda who, number, _: (
            1,
            f"zset:{who:012d}",
            case.limit,
            span,
            case.window * 1000,
            f"{number:016x}",
        ),
    )
    yield Contender(
        "two buckets",
        with_clock((PEERS / "two_buckets.lua").read_text(), "time"),
        lambda who, _number, _now: (1, f"two:{{{who:012d}}}:", case.limit, span),
    )
    if (limits := importlib.util.find_spec("limits")) is not None and limits.origin is not None:
        yield from limits_library(case, Path(limits.origin).parent / "resources" / "redis" / "lua_scripts")
    if importlib.util.find_spec("throttled") is not None:
        yield from throttled_library(case)


def with_clock(source: str, name: str) -> str:
    """A script that calls TIME, with the simulated time instead."""
    for quote in "'\"":
        source = source.replace(
            f"local {name} = redis.call({quote}TIME{quote})",
            f"local clock = {GET_CLOCK}\nlocal {name} = {{ string.sub(clock, 1, -7), string.sub(clock, -6) }}",
        )
    return source


def limits_library(case: Case, scripts: Path) -> Iterator[Contender]:
    """The two strategies of `limits`; one takes the client's time, one lives by the expiry of its keys."""
    yield Contender(
        "limits, moving window",
        (scripts / "acquire_moving_window.lua").read_text(),
        lambda who, _, now: (1, f"LIMITS:{who:012d}", f"{now / 1e6:.6f}", case.limit, case.window, 1),
        admits=bool,
    )
    yield Contender(
        "limits, window counter",
        (scripts / "acquire_sliding_window.lua").read_text(),
        lambda who, *_: (
            2,
            f"{{LIMITS:{who:012d}}}/-1",
            f"{{LIMITS:{who:012d}}}",
            case.limit,
            case.window,
            1,
        ),
        admits=bool,
        simulated=False,
    )


def throttled_library(case: Case) -> Iterator[Contender]:
    """Two strategies of `throttled-py`; the first takes the client's time."""

    def two_windows(who: int, _number: int, now: int) -> Call:
        number, prefix = now // (case.window * 1_000_000), f"throttled:{who:012d}:period:"
        return 2, f"{prefix}{number}", f"{prefix}{number - 1}", case.window, case.limit, 1, now // 1000

    window = importlib.import_module("throttled.rate_limiter.sliding_window")
    cells = importlib.import_module("throttled.rate_limiter.gcra")
    yield Contender(
        "throttled-py, sliding window",
        window.RedisLimitAtomicActionSpec.SCRIPTS,
        two_windows,
        admits=lambda reply: not reply[0],
    )
    yield Contender(
        "throttled-py, GCRA",
        with_clock(cells.RedisLimitAtomicActionSpec.SCRIPTS, "now"),
        lambda who, *_: (1, f"throttled:{who:012d}", case.window / case.limit, case.limit, 1),
        admits=lambda reply: not reply[0],
    )


def measure(client: redis.Redis, contender: Contender, case: Case) -> tuple[float, float, float]:
    """(microseconds a decision, bytes a client, share admitted) of one limiter in one case."""
    client.flushall()
    clients, warm, count = case.sizes()
    sha = client.script_load(contender.source)
    admitted, spent_us, stream = 0, 0, case.arrivals()
    for start in range(0, count, BATCH):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, start + BATCH):
            now, who = next(stream)
            pipeline.set(CLOCK, now)
            pipeline.evalsha(sha, *contender.ask(who, number, now))
        client.config_resetstat()
        replies = pipeline.execute()[1::2]
        if start >= warm:
            spent_us += client.info("commandstats")["cmdstat_evalsha"]["usec"]
            admitted += sum(map(contender.admits, replies))
    keys = [key for key in client.scan_iter(count=1000) if key != CLOCK.encode()]
    memory = sum(client.memory_usage(key, samples=0) or 0 for key in keys)
    return spent_us / (count - warm), memory / clients, admitted / (count - warm)


def column(client: redis.Redis, case: Case, rounds: int) -> dict[str, str]:
    """The cells of a case, by contender."""
    cells = {"exact answer": f"{case.exact_share():.3f}"}
    best: dict[str, tuple[float, float, float]] = {}
    for _ in range(rounds):
        for contender in contenders(case):
            if contender.weighs or case.cost == 1:
                result = measure(client, contender, case)
                best[contender.name] = min(best.get(contender.name, result), result)
                time_us, memory, share = best[contender.name]
                admitted = f"{share:.3f}" if contender.simulated else "-"
                cells[contender.name] = f"{time_us:.1f} µs · {memory:.0f} B · {admitted}"
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redis", type=Path, help="a redis-server; the embedded one by default")
    parser.add_argument("--rounds", type=int, default=3, help="the least time of so many counts")
    parser.add_argument(
        "--cases", type=int, default=len(CASES), help="how many of the policies, from the left"
    )
    options = parser.parse_args()
    for name in ("limits", "throttled"):
        if importlib.util.find_spec(name) is None:
            print(f"not installed, left out: {name}", file=sys.stderr)
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder), binary=options.redis, options=('save ""',)) as server,
    ):
        client = redis.Redis.from_url(server.url)
        version = client.info("server")["redis_version"]
        print(f"Redis {version}: server time per decision · bytes per client · share admitted\n")
        cases = CASES[: options.cases]
        columns = [column(client, case, options.rounds) for case in cases]
        client.close()
    print("| limiter | " + " | ".join(case.name for case in cases) + " |")
    print("|---" * (1 + len(cases)) + "|")
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(cells.get(name, "") for cells in columns) + " |")


if __name__ == "__main__":
    main()

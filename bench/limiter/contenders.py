"""Who is compared: each limiter's script, how it is asked, and what its reply means."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.harness.peers import SOURCES, install_python
from bench.limiter.cases import Case
from server.ratelimit.policies import Algorithm, Charge, Policy, PreparedCharges
from server.ratelimit.scripts import prepare_decision
from server.stores.redis.scripts import load_script

CLOCK = "{clock}"
LOG_ENTRIES = 1024
OURS = "mastery, sliding window"
YES_OR_NO, SAME_ANSWERS = "limits, moving window", "limits, and what remains"
_FOLDER = SOURCES / "limiters"

Call = tuple[Any, ...]  # number of keys, keys, arguments
Ask = Callable[[int, int, int], Call]  # client, number of the request, microseconds


@dataclass(frozen=True, slots=True)
class Contender:
    """A limiter.

    Attributes:
        name: of its row.
        source: its script, at a simulated time.
        ask: the operands of a call.
        admits: what a reply means.
        weighs: whether it knows costs.
        simulated: whether its time is simulated; else it lives by the expiry of its keys, and admits as it happens.
        then: a second script that completes the answer, and the operands of its call.
    """

    name: str
    source: str
    ask: Ask
    admits: Callable[[Any], bool] = lambda reply: bool(reply[0])
    weighs: bool = False
    simulated: bool = True
    then: tuple[str, Ask] | None = None


def contenders(case: Case, libraries: Mapping[str, str]) -> Iterator[Contender]:
    """Everyone who is there, for a case.

    Args:
        case: to be compared under.
        libraries: what `library_scripts` returns, or nothing.
    """
    clock = load_script("includes/server_clock").source.decode()
    decide = load_script("decide_charges").source.decode().replace(clock, with_clock(clock, "time"))
    yield Contender(OURS, decide, _ours(case, "sliding_window"), weighs=True)
    yield Contender("mastery, token bucket", decide, _ours(case, "token_bucket"), weighs=True)
    span = case.window * 1_000_000
    yield Contender(
        "log in a ZSET",
        with_clock((_FOLDER / "zset_log.lua").read_text(), "time"),
        lambda who, number, _: (
            1, f"zset:{who:012d}", case.limit, span, case.window * 1000, f"{number:016x}",
        ),
    )  # fmt: skip
    yield Contender(
        "two buckets",
        with_clock((_FOLDER / "two_buckets.lua").read_text(), "time"),
        lambda who, _number, _now: (1, f"two:{{{who:012d}}}:", case.limit, span),
    )
    if libraries:
        yield from _limits(case, libraries)
        yield from _throttled(case, libraries)


def library_scripts() -> dict[str, str]:
    """The scripts of the libraries by the names of their rows, and the libraries' versions; installed at first.

    Raises:
        PeerMissing: they can't be installed.
    """
    python = install_python("limiters")
    done = subprocess.run(
        [str(python), str(_FOLDER / "scripts.py")], capture_output=True, check=True, text=True
    )
    scripts: dict[str, str] = json.loads(done.stdout)
    return scripts


def with_clock(source: str, name: str) -> str:
    """A script with a simulated time, as TIME would answer it, instead of `local <name> = redis.call('TIME')`."""
    for quote in "'\"":
        source = source.replace(
            f"local {name} = redis.call({quote}TIME{quote})",
            f"local clock = redis.call('GET', '{CLOCK}')\n"
            f"local {name} = {{ string.sub(clock, 1, -7), string.sub(clock, -6) }}",
        )
    return source


def _ours(case: Case, algorithm: Algorithm) -> Ask:
    policy = Policy(f"bench {algorithm}", case.limit, case.window * 1000, algorithm)
    calls = dict[int, Call]()

    def ask(client: int, _number: int, _now: int) -> Call:
        if client not in calls:
            charges = PreparedCharges([Charge(policy, "bench", f"user:{client}", case.cost)])
            calls[client] = prepare_decision(charges, log_entries=LOG_ENTRIES).operands
        return calls[client]

    return ask


def _limits(case: Case, libraries: Mapping[str, str]) -> Iterator[Contender]:
    """The two strategies of `limits`; one takes the client's time, one lives by the expiry of its keys."""

    def moving_window(who: int, _number: int, now: int) -> Call:
        return 1, f"LIMITS:{who:012d}", f"{now / 1e6:.6f}", case.limit, case.window, 1

    def window_counter(who: int, _number: int, _now: int) -> Call:
        key = f"{{LIMITS:{who:012d}}}"
        return 2, f"{key}/-1", key, case.limit, case.window, 1

    def what_remains(who: int, _number: int, now: int) -> Call:
        return 1, f"LIMITS:{who:012d}", f"{now / 1e6 - case.window:.6f}", case.limit

    yield Contender(YES_OR_NO, libraries[YES_OR_NO], moving_window, admits=bool)
    remains = libraries["limits, what remains"], what_remains
    yield Contender(SAME_ANSWERS, libraries[YES_OR_NO], moving_window, admits=bool, then=remains)
    name = "limits, window counter"
    yield Contender(name, libraries[name], window_counter, admits=bool, simulated=False)


def _throttled(case: Case, libraries: Mapping[str, str]) -> Iterator[Contender]:
    """Two strategies of `throttled-py`; the first takes the client's time."""

    def two_windows(who: int, _number: int, now: int) -> Call:
        number, prefix = now // (case.window * 1_000_000), f"throttled:{who:012d}:period:"
        return 2, f"{prefix}{number}", f"{prefix}{number - 1}", case.window, case.limit, 1, now // 1000

    def cells(who: int, _number: int, _now: int) -> Call:
        return 1, f"throttled:{who:012d}", case.window / case.limit, case.limit, 1

    name = "throttled-py, sliding window"
    yield Contender(name, libraries[name], two_windows, admits=lambda reply: not reply[0])
    name = "throttled-py, GCRA"
    source = with_clock(libraries[name], "now")
    yield Contender(name, source, cells, admits=lambda reply: not reply[0])

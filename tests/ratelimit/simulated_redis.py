"""The limiter's real scripts on a real Redis, at a time of the test's own: only their clock is replaced."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Coroutine, Sequence
from time import monotonic_ns
from typing import Any, NamedTuple, Protocol, TypeVar

import redis

from server.ratelimit.memory import MemoryLink
from server.ratelimit.policies import Algorithm
from server.ratelimit.scripts import KEPT_LONGER_MS, Answers, ChargeState, ScriptRunner
from server.stores.redis.scripts import Script, load_script

Result = TypeVar("Result")

# Those whose states a reload turns into each other.
ALGORITHMS: tuple[Algorithm, ...] = ("sliding_window", "token_bucket")
CLOCK_KEY = "{simulated}clock"
START_US = 1_790_000_000_000_000
_REAL_CLOCK = load_script("includes/server_clock").source
_REAL_MARGIN = b"local KEPT_LONGER_MS = %d\n" % KEPT_LONGER_MS
_REAL_PAGE = b"local PAGE = 16\n"
_SIMULATED_CLOCK = f"local now = tonumber(redis.call('GET', '{CLOCK_KEY}'))\n".encode()


@functools.cache
def simulated(script: Script, page_entries: int, kept_longer_ms: int) -> Script:
    """The script with lua/includes/server_clock.lua replaced by a key that the test sets.

    Args:
        script: the real one.
        page_entries: entries of a page; a small number brings a long log's forms into short tests.
        kept_longer_ms: how long a state outlives its newest entry.
    """
    assert _REAL_CLOCK in script.source
    assert _REAL_PAGE in script.source
    source = script.source.replace(_REAL_CLOCK, _SIMULATED_CLOCK)
    assert _REAL_MARGIN in source
    source = source.replace(_REAL_MARGIN, b"local KEPT_LONGER_MS = %d\n" % kept_longer_ms)
    source = source.replace(_REAL_PAGE, b"local PAGE = %d\n" % page_entries)
    return Script(script.name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


class SimulatedRunner:
    """A `ScriptRunner` whose scripts see the time that a `SimulatedRedis` on the same server has set.

    Args:
        url: of the Redis.
        page_entries: as for `simulated`.
        kept_longer_ms: as for `simulated`.
    """

    def __init__(self, url: str, *, page_entries: int = 16, kept_longer_ms: int = KEPT_LONGER_MS) -> None:
        self.client = redis.Redis.from_url(url)
        self.page_entries = page_entries
        self.kept_longer_ms = kept_longer_ms

    async def run_script(
        self,
        script: Script,
        keys: Sequence[bytes | str],
        args: Sequence[bytes | str | int | float],
        *,
        deadline_ms: float | None = None,  # noqa: ARG002 - the interface is RedisLink's
    ) -> Any:
        """Run it at the simulated time."""
        changed = simulated(script, self.page_entries, self.kept_longer_ms)
        try:
            return self.client.evalsha(changed.sha1, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return self.client.eval(changed.source.decode(), len(keys), *keys, *args)


class SimulatedRedis(SimulatedRunner):
    """A `ScriptRunner` whose scripts see `now_us` as the server's time.

    Keys expire by the real time: a test in which little time is simulated must not be stopped for longer than a
    state's life, or it sets `kept_longer_ms`.

    Args:
        url: of the Redis.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url
        self._now_us = 0
        self.now_us = START_US

    @property
    def now_us(self) -> int:
        """The server's time, microseconds since 1970."""
        return self._now_us

    @now_us.setter
    def now_us(self, value: int) -> None:
        self._now_us = value
        self.client.set(CLOCK_KEY, value, px=3_600_000)


class SimulatedMemory(MemoryLink):
    """The store in memory at a time of the test's own.

    Keys expire by the real time, as in `SimulatedRedis`.
    """

    page_entries = 16  # of Redis's logs: here there are no pages

    def __init__(self) -> None:
        super().__init__(lambda: self.now_us)
        self.now_us = START_US

    @property
    def kept_longer_ms(self) -> int:
        """How long a state outlives its newest entry."""
        return self.kept_longer_us // 1000

    @kept_longer_ms.setter
    def kept_longer_ms(self, value: int) -> None:
        self.kept_longer_us = value * 1000

    def _wall_us(self) -> int:
        return self.now_us

    def _lives_at(self) -> int:
        return monotonic_ns() // 1000


class Simulated(ScriptRunner, Protocol):
    """One or the other."""

    now_us: int
    page_entries: int
    kept_longer_ms: int


def result_of(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """What a coroutine returns that never waits, as one over `SimulatedRedis` does not."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    raise AssertionError("it waits for something")


class Answer(NamedTuple):
    """The answer to one charge, its numbers named; see `Answers.rows`."""

    state: ChargeState
    remaining: int
    release_us: int
    wait_us: int


def named(answers: Answers) -> tuple[Answer, ...]:
    """The answer to each charge in order."""
    return tuple(Answer(ChargeState(state), *numbers) for state, *numbers in answers.rows)

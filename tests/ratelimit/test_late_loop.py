"""A worker that is busy, and a Redis that is well: never one admission too many, with the default deadline."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from server.development import EmbeddedServer
from server.ratelimit import Charge, Decision, Limiter, Policy
from server.stores.redis.link import RedisLink
from tests.support.waiting import WAIT_SECONDS

LATE_SECONDS = 0.1
DEADLINE_MS = 50  # the limiter's default
MINUTE = Policy("minute", 100, 60_000)
HOUR = Policy("hour", 1000, 3_600_000)

Run = Callable[[Coroutine[Any, Any, "Flood"]], "Flood"]
run_by_each_loop = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Flood:
    """What came of many decisions at once: by client and by source, and what the limiter reported."""

    def __init__(self) -> None:
        self.admitted: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.failures: list[str] = []
        self.outages: list[bool] = []

    def note(self, decision: Decision) -> None:
        """Count one."""
        self.admitted[decision.verdicts[0].subject] += decision.allowed
        self.sources[decision.source] += 1


@run_by_each_loop
@pytest.mark.parametrize("count", [1000, 3000])
@pytest.mark.parametrize("late", [False, True], ids=["busy", "100 ms late"])
@pytest.mark.parametrize("clients", [1, 40])
def test_share_01_a_late_loop_admits_no_more_than_the_limit(
    shared_redis: EmbeddedServer, run: Run, count: int, late: bool, clients: int
) -> None:
    """Decisions of one loop turn are as exact as those of many, and are no failure of Redis."""
    flood = flood_of_a_redis_that_runs(shared_redis, run, count, clients=clients, late=late)
    assert {min(100, count // clients)} == set(flood.admitted.values())
    assert {"redis", "local-deny"} >= set(flood.sources)
    assert ([], []) == (flood.failures, flood.outages)


@run_by_each_loop
def test_share_01_scripts_that_have_to_be_loaded_first(shared_redis: EmbeddedServer, run: Run) -> None:
    """A Redis that has forgotten the scripts while the loop is late: loaded, and not one too many."""
    flood = flood_of_a_redis_that_runs(shared_redis, run, 1000, clients=1, late=True, flush=True)
    assert 100 == flood.admitted.total()
    assert ([], []) == (flood.failures, flood.outages)


def flood_of_a_redis_that_runs(server: EmbeddedServer, run: Run, count: int, **how: Any) -> Flood:
    """The first flood without failures that the machine can have caused, by not letting Redis run for the deadline."""
    latest = time.monotonic() + WAIT_SECONDS
    while True:
        before = waited_ms(server.pid)
        flood = run(flood_of(server.url, count, **how))
        if not flood.failures or waited_ms(server.pid) - before < DEADLINE_MS or time.monotonic() > latest:
            return flood


def waited_ms(pid: int) -> float:
    """For how long a process has been able to run and has not been let, where the system counts that."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e6
    return 0.0


async def flood_of(url: str, count: int, *, clients: int, late: bool, flush: bool = False) -> Flood:
    """Decide for some clients, all at once, on a loop that something else holds for a while in every turn."""
    flood = Flood()
    link = RedisLink(url)
    await link.start()
    if flush:
        await link.execute("SCRIPT", "FLUSH", deadline_ms=5000)
    limiter = Limiter(link, on_failure=flood.failures.append, on_fallback=flood.outages.append)
    flooding = secrets.token_hex(4)
    holding = asyncio.create_task(_hold_the_loop()) if late else None

    async def decide(number: int) -> None:
        subject = f"user:{flooding}-{number % clients}"
        flood.note(await limiter.decide([Charge(MINUTE, "g", subject), Charge(HOUR, "all", subject)]))

    await asyncio.gather(*map(decide, range(count)))
    if holding is not None:
        holding.cancel()
    await limiter.close()
    await link.close()
    return flood


async def _hold_the_loop() -> None:
    while True:
        time.sleep(LATE_SECONDS)  # noqa: ASYNC251 - a handler that computes, or a machine that is busy
        await asyncio.sleep(0)

"""A limiter under steady load in a process of its own, whose loop does nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

import uvloop

from server.ratelimit import Charge, Decision, Limiter, Policy
from server.stores.redis.link import RedisLink

LOCAL_LIMIT = 5
OPEN = Policy("open", 100_000, 600_000)
CLOSED = Policy("closed", 100_000, 600_000, on_failure="closed")
LOCAL = Policy("local", LOCAL_LIMIT, 600_000, on_failure="local")
POLICIES = (OPEN, CLOSED, LOCAL)

LOAD_SECONDS = 1.2
PAUSE_SECONDS = 0.005
RECOVERY_SECONDS = 15.0


@dataclass(slots=True)
class Load:
    """What came of steady requests.

    Attributes:
        latencies_ms: of each decision, in order of size.
        lags_ms: by how much the loop was late at each pause, in order of size.
        sources: how many decisions came from where.
        allowed: how many were admitted under each policy.
    """

    latencies_ms: list[float] = field(default_factory=list)
    lags_ms: list[float] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    allowed: Counter[str] = field(default_factory=Counter)

    def p99_ms(self) -> float:
        """What ninety-nine of a hundred decisions do not exceed."""
        return self.latencies_ms[int(len(self.latencies_ms) * 0.99)]


class LoadedLimiter:
    """The process, from outside.

    Args:
        pipe: to it.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def open(self, url: str, *, deadline_ms: float) -> None:
        """Connect a new limiter to a Redis that is well; it has made a decision when this returns."""
        assert await self._ask(("open", url, deadline_ms)) == "redis"

    async def load(self) -> Load:
        """Three requests every few milliseconds, for a second or so, whether or not earlier ones are answered."""
        load: Load = await self._ask(("load",))
        return load

    async def recover(self) -> float:
        """Ask until Redis decides, then close; the milliseconds until it did."""
        recovered_ms: float = await self._ask(("recover",))
        return recovered_ms

    async def _ask(self, order: tuple[object, ...]) -> Any:
        self._pipe.send(order)
        answer = await asyncio.to_thread(self._pipe.recv)
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextlib.contextmanager
def loaded_limiter() -> Iterator[LoadedLimiter]:
    """The process for the length of the block."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield LoadedLimiter(mine)
    finally:
        mine.send(None)
        process.join()
        theirs.close()
        mine.close()


def _serve(pipe: Connection) -> None:
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_obey(pipe))


async def _obey(pipe: Connection) -> None:
    link: RedisLink | None = None
    limiter: Limiter | None = None
    while (order := await asyncio.to_thread(pipe.recv)) is not None:
        try:
            match order:
                case ("open", url, deadline_ms):
                    link = RedisLink(url, deadline_ms=deadline_ms, connect_timeout_ms=500)
                    await link.start()
                    limiter = Limiter(link, deadline_ms=deadline_ms)
                    pipe.send(await _until_redis_decides(limiter))
                case ("load",):
                    assert limiter is not None
                    pipe.send(await _load(limiter))
                case ("recover",):
                    assert limiter is not None
                    assert link is not None
                    mended = monotonic()
                    await _until_redis_decides(limiter)
                    pipe.send((monotonic() - mended) * 1000)
                    await limiter.close()
                    await link.close()
        except Exception as error:  # noqa: BLE001 - it is raised on the other side
            pipe.send(error)


async def _load(limiter: Limiter) -> Load:
    load = Load()

    async def ask(policy: Policy) -> None:
        began = monotonic()
        decision: Decision = await limiter.decide([Charge(policy, "faults", f"user:{policy.name}")])
        load.latencies_ms.append((monotonic() - began) * 1000)
        load.sources[decision.source] += 1
        load.allowed[policy.name] += decision.allowed

    ends = monotonic() + LOAD_SECONDS
    async with asyncio.TaskGroup() as tasks:
        while (now := monotonic()) < ends:
            for policy in POLICIES:
                tasks.create_task(ask(policy))
            await asyncio.sleep(PAUSE_SECONDS)
            load.lags_ms.append((monotonic() - now - PAUSE_SECONDS) * 1000)
    load.latencies_ms.sort()
    load.lags_ms.sort()
    return load


async def _until_redis_decides(limiter: Limiter) -> str:
    ends = monotonic() + RECOVERY_SECONDS
    while monotonic() < ends:
        source: str = (await limiter.decide([Charge(OPEN, "faults", "user:probe")])).source
        if source == "redis":
            return source
        await asyncio.sleep(PAUSE_SECONDS)
    raise TimeoutError("Redis does not decide again")

"""How the limiter's cost in Redis grows with the number of clients: memory for each, and the script's time."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import redis
import uvloop

from bench.harness.machine import Cores, on_cores
from bench.harness.redis import RedisCounts
from server.development import EmbeddedServer, redis_server
from server.ratelimit import Charge, Limiter, Policy
from server.stores.redis.link import RedisLink

SIZES = (10, 1_000, 100_000, 1_000_000)
_BATCH = 500
_SAMPLES = 10_000
_DEADLINE_MS = 10_000.0
# Long windows, so that nothing expires while the keys are made.
_POLICIES = (Policy("generous", 100, 3_600_000), Policy("api", 1000, 24 * 3_600_000))


@dataclass(frozen=True, slots=True)
class KeysFigures:
    """The limiter with so many clients, each under two policies.

    Attributes:
        bytes_per_client: Redis's memory beyond an empty server's, both policies' keys together.
        script_us: Redis's time for a decision about one of them at random, microseconds.
    """

    clients: int
    bytes_per_client: float
    script_us: float


def sweep_keys(
    folder: Path, cores: Cores, *, seconds: float, sizes: tuple[int, ...] = SIZES
) -> list[KeysFigures]:
    """The figures for each size, on a Redis of its own; sizes that there is no time for are left out."""
    with (
        on_cores(cores.beside),
        redis_server(folder / "keys", options=('save ""', "appendonly no")) as server,
    ):
        return uvloop.run(_sweep(server, sizes, time.monotonic() + seconds))


async def _sweep(server: EmbeddedServer, sizes: tuple[int, ...], deadline: float) -> list[KeysFigures]:
    link = RedisLink(server.url, deadline_ms=_DEADLINE_MS)
    await link.start()
    limiter = Limiter(link, deadline_ms=_DEADLINE_MS)
    await limiter.start()
    generator = random.Random(1)
    found, known = [], 0
    try:
        empty = _memory(server.url)
        for size in sizes:
            while known < size and time.monotonic() < deadline:
                upto = min(size, known + _BATCH)
                await _decide(limiter, range(known, upto))
                known = upto
            if known < size:
                break
            memory = _memory(server.url)
            before = RedisCounts.of(server.url, server.pid)
            for _ in range(_SAMPLES // _BATCH):
                await _decide(limiter, [generator.randrange(size) for _ in range(_BATCH)])
            after = RedisCounts.of(server.url, server.pid)
            spent = after.us["evalsha"] - before.us["evalsha"]
            found.append(
                KeysFigures(
                    clients=size,
                    bytes_per_client=(memory - empty) / size,
                    script_us=spent / (after.calls["evalsha"] - before.calls["evalsha"]),
                )
            )
    finally:
        await limiter.close()
        await link.close()
    return found


async def _decide(limiter: Limiter, clients: range | list[int]) -> None:
    await asyncio.gather(
        *(
            limiter.decide([Charge(policy, "reads", f"user:{client:032x}") for policy in _POLICIES])
            for client in clients
        )
    )


def _memory(url: str) -> int:
    with closing(redis.Redis.from_url(url)) as client:
        return cast("dict[str, int]", client.info("memory"))["used_memory"]

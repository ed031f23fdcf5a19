"""Caches over a real Redis, each as a process of its own would have it, and loaders that wait to be let go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from server.stores.cache.cache import Cache
from server.stores.redis.link import RedisLink
from server.telemetry.metrics.index import Metrics
from tests.support.redis_servers import open_link

TTL_SECONDS = 120


class Process:
    """What one worker has: a cache, its link, its counters."""

    def __init__(self, link: RedisLink) -> None:
        self.link = link
        self.metrics = Metrics()
        self.cache = Cache(link, self.metrics, ttl_seconds=TTL_SECONDS, deadline_ms=2000)

    def counts(self) -> dict[str, int]:
        """The counters that are not zero."""
        totals = self.metrics.cache_totals()
        named = {
            "hits": totals.hits, "misses": totals.misses, "sets": totals.sets,
            "deletes": totals.deletes, "errors": totals.errors,
        }  # fmt: skip
        return {name: count for name, count in named.items() if count}


@contextlib.asynccontextmanager
async def open_process(url: str) -> AsyncIterator[Process]:
    """A process for the length of the block."""
    async with open_link(url) as link:
        process = Process(link)
        try:
            yield process
        finally:
            await process.cache.close()


class Source:
    """A database of one value: counts its loads, and can hold them back between the read and the answer."""

    def __init__(self, value: Any = "first") -> None:
        self.value = value
        self.loads = 0
        self.reading = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()

    async def load(self) -> Any:
        """The value at the moment of the call."""
        self.loads += 1
        value = self.value
        self.reading.set()
        await self.release.wait()
        return value

    def hold(self) -> None:
        """Let the loads that begin from now on wait."""
        self.reading.clear()
        self.release.clear()

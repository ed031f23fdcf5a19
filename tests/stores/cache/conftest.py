"""Two processes with a cache, and a time of the test's own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import closing
from types import SimpleNamespace

import pytest
import redis

from server.development import EmbeddedServer
from server.stores.cache import cache, values
from tests.stores.cache.caches import Process, open_process


class Clock:
    """The time of day as the cache sees it; it stands still until it is put forward."""

    def __init__(self) -> None:
        self.seconds = time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the cache; Redis has its own."""
    clock = Clock()
    for module in (cache, values):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: clock.seconds))
    return clock


@pytest.fixture
async def processes(shared_redis: EmbeddedServer) -> AsyncIterator[list[Process]]:
    """Two processes over the session's Redis, emptied."""
    with closing(redis.Redis.from_url(shared_redis.url)) as client:
        client.flushall()
    async with open_process(shared_redis.url) as one, open_process(shared_redis.url) as other:
        yield [one, other]

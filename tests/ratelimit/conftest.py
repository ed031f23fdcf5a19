"""A limiter over a real link to a real Redis."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from server.ratelimit import Limiter
from server.stores.redis_link import RedisLink
from server.tools.embedded import EmbeddedServer
from tests.ratelimit.simulated_redis import SimulatedRedis

# Tests are not about deadlines unless they say so, and the machine may be busy.
GENEROUS_DEADLINE_MS = 5000

_numbers = itertools.count()


@pytest.fixture
def subject() -> str:
    """A client that no other test knows."""
    return f"user:test-{next(_numbers)}"


@pytest.fixture
def simulated(shared_redis: EmbeddedServer) -> Iterator[SimulatedRedis]:
    """The session's Redis with a clock of the test's own."""
    redis = SimulatedRedis(shared_redis.url)
    yield redis
    redis.client.close()


@pytest.fixture
async def link(shared_redis: EmbeddedServer) -> AsyncIterator[RedisLink]:
    """A link to the session's Redis."""
    link = RedisLink(shared_redis.url, deadline_ms=GENEROUS_DEADLINE_MS)
    await link.start()
    yield link
    await link.close()


@pytest.fixture
async def limiter(link: RedisLink) -> AsyncIterator[Limiter]:
    """A limiter on the session's Redis."""
    limiter = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
    await limiter.start()
    yield limiter
    await limiter.close()

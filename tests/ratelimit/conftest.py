"""A limiter over a real link to a real Redis."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from server.development import EmbeddedServer, redis_server
from server.ratelimit import Limiter
from server.stores.redis.link import RedisLink
from tests.ratelimit.simulated_redis import SimulatedMemory, SimulatedRedis
from tests.support.redis_servers import redis_binaries

# Tests are not about deadlines unless they say so, and the machine may be busy.
GENEROUS_DEADLINE_MS = 5000

_numbers = itertools.count()


@pytest.fixture
def subject() -> str:
    """A client that no other test knows."""
    return f"user:test-{next(_numbers)}"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], EmbeddedServer]]:
    """Starts a Redis of a version, once."""
    with ExitStack() as stack:

        @functools.cache
        def start(binary: Path) -> EmbeddedServer:
            folder = tmp_path_factory.mktemp("simulated")
            return stack.enter_context(redis_server(folder, binary=binary, options=('save ""',)))

        yield start


def emptied(redis: SimulatedRedis) -> Iterator[SimulatedRedis]:
    """A Redis for a test; each key that it leaves must have a TTL."""
    yield redis
    assert [] == [key for key in redis.client.scan_iter(count=1000) if redis.client.ttl(key) == -1]
    redis.client.flushall()
    redis.client.close()


@pytest.fixture(
    params=[*redis_binaries(), None], ids=lambda path: "memory" if path is None else path.parent.name
)
def simulated(
    request: pytest.FixtureRequest, servers: Callable[[Path], EmbeddedServer]
) -> Iterator[SimulatedRedis | SimulatedMemory]:
    """A Redis of each version on this machine, or the store in memory, with a clock of the test's own."""
    if request.param is None:
        yield SimulatedMemory()
    else:
        yield from emptied(SimulatedRedis(servers(request.param).url))


@pytest.fixture(params=redis_binaries(), ids=lambda path: path.parent.name)
def simulated_server(
    request: pytest.FixtureRequest, servers: Callable[[Path], EmbeddedServer]
) -> Iterator[SimulatedRedis]:
    """The same for tests that look at the keys of a Redis."""
    yield from emptied(SimulatedRedis(servers(request.param).url))


@pytest.fixture
async def link(shared_redis: EmbeddedServer) -> AsyncIterator[RedisLink]:
    """A link to the session's Redis."""
    link = RedisLink(
        shared_redis.url, deadline_ms=GENEROUS_DEADLINE_MS, connect_timeout_ms=GENEROUS_DEADLINE_MS
    )
    await link.start()
    yield link
    await link.close()


@pytest.fixture(autouse=True)
def no_key_stays_forever(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a key without a TTL in the session's Redis."""
    if "shared_redis" not in request.fixturenames:
        yield
        return
    client: redis.Redis = request.getfixturevalue("redis_client")
    yield
    assert [] == [key for key in client.scan_iter(count=1000) if client.ttl(key) == -1]


@pytest.fixture
async def limiter(link: RedisLink) -> AsyncIterator[Limiter]:
    """A limiter on the session's Redis."""
    limiter = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
    await limiter.start()
    yield limiter
    await limiter.close()

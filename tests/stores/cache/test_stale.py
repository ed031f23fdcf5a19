"""Values that are kept after their freshness: answered while they are loaded anew, and while the database is away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.development import EmbeddedServer
from server.stores.cache.cache import Cache
from server.stores.postgres.database import DatabaseUnavailable
from server.telemetry.metrics.index import Metrics
from server.telemetry.timings import Timings, current_timings
from tests.support.redis_servers import open_link
from tests.support.waiting import wait_until


class Database:
    """Loads what it holds, and can be away."""

    def __init__(self) -> None:
        self.value = "first"
        self.loads = 0
        self.is_away = False

    async def load(self) -> str:
        """The value of this moment."""
        self.loads += 1
        if self.is_away:
            raise DatabaseUnavailable("refused")
        return self.value


@pytest.fixture
async def stale_at_once(shared_redis: EmbeddedServer) -> AsyncIterator[Cache]:
    """A cache whose values are never fresh and are kept for a minute."""
    async with open_link(shared_redis.url) as link:
        await link.execute("FLUSHALL")
        cache = Cache(link, Metrics(), ttl_seconds=0, stale_seconds=60, deadline_ms=2000)
        yield cache
        await cache.close()


async def look(cache: Cache, database: Database) -> tuple[str, str | None]:
    """A value, and what X-Cache would say of it."""
    timings = Timings()
    current_timings.set(timings)
    value: str = await cache.lookup("k").value(database.load)
    return value, timings.cache_outcome


async def test_a_stale_value_is_answered_while_it_is_loaded_anew(stale_at_once: Cache) -> None:
    """Nobody waits for the load; the next reader has the new value."""
    database = Database()
    assert ("first", "MISS") == await look(stale_at_once, database)
    database.value = "second"
    assert ("first", "STALE") == await look(stale_at_once, database)
    await wait_until(lambda: database.loads == 2, "it is loaded anew")
    seen = set()

    async def has_arrived() -> bool:
        seen.add(await look(stale_at_once, database))
        return ("second", "STALE") in seen

    for _ in range(1000):
        if await has_arrived():
            break
    assert ("second", "STALE") in seen


async def test_what_was_read_before_goes_on_while_the_database_is_away(stale_at_once: Cache) -> None:
    """A load that fails in the background takes nothing from the readers."""
    database = Database()
    await look(stale_at_once, database)
    database.is_away = True
    assert {("first", "STALE")} == {await look(stale_at_once, database) for _ in range(5)}
    assert database.loads > 1


async def test_what_was_invalidated_is_not_answered_again(stale_at_once: Cache) -> None:
    """A value that a write has made wrong does not come back because the database went away afterwards."""
    database = Database()
    await look(stale_at_once, database)
    await stale_at_once.invalidate(["k"])
    database.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await look(stale_at_once, database)

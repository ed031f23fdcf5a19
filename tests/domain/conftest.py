"""The domain over a real database and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest
from psycopg2.extras import register_uuid

from server.domain.bookmarks import Bookmarks
from server.domain.progress import Progress
from server.domain.sessions import Sessions
from server.stores.cache import Cache
from server.stores.database import Database
from server.stores.redis_link import RedisLink
from server.telemetry.metrics import Metrics
from tests.api.conftest import COURSE, Course, course, people, redis_url

__all__ = ["COURSE", "Course", "course", "people", "redis_url"]

register_uuid()  # type: ignore[no-untyped-call]

_LOCK_FIGURES = "DO $$ BEGIN PERFORM FROM user_stats ORDER BY user_id FOR UPDATE; END $$;"


@dataclass(frozen=True)
class Domain:
    """What is under test, and a way to look at the tables beside it."""

    database: Database
    progress: Progress
    sessions: Sessions
    bookmarks: Bookmarks
    url: str

    def delete(self, statement: str, *values: object) -> None:
        """Delete shared content or users as the service must: with the figures of all students locked first.

        Everything that writes for a student takes their figures first, and so neither waits for the other in a circle.
        """
        self.sql(_LOCK_FIGURES + statement, *values)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement, committed, and give its rows if it has any."""
        connection = psycopg2.connect(self.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@pytest.fixture
async def domain(database_url: str, redis_url: str) -> AsyncIterator[Domain]:
    """The domain with a pool of its own."""
    database = Database(database_url, pool_size=8, acquire_timeout_ms=20_000)
    link = RedisLink(redis_url, deadline_ms=2000)
    cache = Cache(link, Metrics(), ttl_seconds=60, deadline_ms=2000)
    await database.start()
    await link.start()
    yield Domain(database, Progress(database, cache), Sessions(database), Bookmarks(database), database_url)
    await cache.close()
    await link.close()
    await database.close()

"""The domain over a real database and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import psycopg2
import pytest
from psycopg2.extras import register_uuid

from server.domain.study.ratings import Rating, Ratings
from server.domain.study.sessions import add_bookmark, end_session, start_session
from server.domain.writing import Writer
from server.stores.cache.cache import Cache
from server.stores.postgres.database import Database
from server.stores.redis.link import RedisLink
from server.telemetry.metrics.index import Metrics
from tests.api.conftest import COURSE, Course, redis_url

__all__ = ["COURSE", "Course", "redis_url"]

register_uuid()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Domain:
    """What is under test, and a way to look at the tables beside it."""

    database: Database
    writer: Writer
    ratings: Ratings
    url: str

    async def record_ratings(
        self, user_id: UUID, ratings: Sequence[Rating], *, zone: ZoneInfo | None
    ) -> list[dict[str, Any]]:
        """Record ratings, several of them as a batch, and give the progress of each."""
        is_batch = len(ratings) > 1
        answer = await self.ratings.record(user_id, ratings, zone=zone, is_batch=is_batch)
        answered = orjson.loads(answer.body or b"")
        progress: list[dict[str, Any]] = answered["progress"] if is_batch else [answered]
        return progress

    async def start_session(self, user_id: UUID, deck_ids: Sequence[UUID]) -> dict[str, Any]:
        """Start a session in a unit of work of its own."""
        return await self.writer.run(lambda unit: start_session(unit, user_id, deck_ids))

    async def end_session(self, user_id: UUID, session_id: UUID) -> dict[str, Any]:
        """End a session in a unit of work of its own."""
        return await self.writer.run(lambda unit: end_session(unit, user_id, session_id))

    async def add_bookmark(self, user_id: UUID, flashcard_id: UUID) -> tuple[bool, dict[str, Any]]:
        """Bookmark a card in a unit of work of its own."""
        return await self.writer.run(lambda unit: add_bookmark(unit, user_id, flashcard_id))

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement, committed, and give its rows if it has any."""
        connection = psycopg2.connect(self.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@asynccontextmanager
async def open_domain(database_url: str, redis_url: str) -> AsyncIterator[Domain]:
    """The domain with a pool of its own, for the length of the block."""
    database = Database(database_url, pool_size=8, acquire_timeout_ms=20_000)
    link = RedisLink(redis_url, deadline_ms=2000)
    cache = Cache(link, Metrics(), ttl_seconds=60, deadline_ms=2000)
    await database.start()
    await link.start()
    writer = Writer(database, cache)
    yield Domain(database, writer, Ratings(database, writer), database_url)
    await cache.close()
    await link.close()
    await database.close()


@pytest.fixture
async def domain(database_url: str, redis_url: str) -> AsyncIterator[Domain]:
    """The domain with a pool of its own."""
    async with open_domain(database_url, redis_url) as opened:
        yield opened

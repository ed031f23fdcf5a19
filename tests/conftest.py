"""Real servers for every test: one PostgreSQL and one Redis a session, a fresh database a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.tools.embedded import EmbeddedServer, postgres_server, redis_server

# A test's database may be lost with the machine: speed is worth more than durability here.
FAST_POSTGRES = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


@pytest.fixture(scope="session")
def shared_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The session's PostgreSQL; tests use `database_url`, and start a server of their own to break one."""
    with postgres_server(tmp_path_factory.mktemp("postgres"), options=FAST_POSTGRES) as server:
        yield server


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The session's Redis; tests use `redis_url`, and start a server of their own to break one."""
    with redis_server(tmp_path_factory.mktemp("redis"), options=('save ""',)) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A Redis that belongs to one test, which may pause, kill or flush it."""
    with redis_server(tmp_path / "redis", options=('save ""',)) as server:
        yield server

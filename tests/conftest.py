"""Real servers for every test: one PostgreSQL and one Redis a session, a fresh database a test."""

from __future__ import annotations

import logging
import secrets
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import structlog

from server.cli.migrations import migrate
from server.development.servers import EmbeddedServer, postgres_server, redis_server
from server.stores.postgres.database import Database

# A test's database may be lost with the machine: speed is worth more than durability here.
FAST_POSTGRES = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "autovacuum=off",  # plans are tested with the statistics that a test has taken, at no moment of chance
)


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Logging is as at the start after every test: what a command or a bench configures here ends with it."""
    root = logging.getLogger()
    handlers, level, show_warning = list(root.handlers), root.level, warnings.showwarning
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    if root.handlers != handlers:
        logging.captureWarnings(capture=False)
        warnings.showwarning = show_warning
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


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


def run_sql(url: str, statement: str) -> None:
    """Run one statement on a connection of its own, outside of a transaction."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)


def replace_database(url: str, name: str) -> str:
    """The same server's other database."""
    return f"{url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def database_template(shared_postgres: EmbeddedServer) -> str:
    """The name of a migrated, empty database that the tests' databases are copied from."""
    name = "mastery_template"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name}")
    migrate(replace_database(shared_postgres.url, name))
    return name


@pytest.fixture
def database_url(shared_postgres: EmbeddedServer, database_template: str) -> Iterator[str]:
    """A migrated, empty database that belongs to one test."""
    name = f"test_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name} TEMPLATE {database_template} STRATEGY file_copy")
    yield replace_database(shared_postgres.url, name)
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_url(shared_postgres: EmbeddedServer) -> Iterator[str]:
    """A database with nothing in it that belongs to one test."""
    name = f"empty_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name}")
    yield replace_database(shared_postgres.url, name)
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A started Database over the test's own copy of the schema."""
    database = Database(database_url, pool_size=4)
    await database.start()
    yield database
    await database.close()

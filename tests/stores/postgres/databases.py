"""Databases for the tests of server/stores/postgres/database.py, with queries of the tests' own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from server.stores.postgres.database import Database

QUERIES = {
    "ping": "SELECT 1 AS answer",
    "sleep": "SELECT pg_sleep(%(seconds)s)",
    "get_pid": "SELECT pg_backend_pid() AS pid",
    "add_class": "INSERT INTO classes (name) VALUES (%(name)s)",
    "list_names": "SELECT name FROM classes ORDER BY name",
    "end_own_session": "SELECT pg_terminate_backend(pg_backend_pid())",
}


@contextlib.asynccontextmanager
async def open_database(
    url: str, queries: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Database]:
    """A started database with QUERIES and more, closed at the end; its deadlines are generous."""
    with tempfile.TemporaryDirectory() as folder:
        for name, sql in (QUERIES | dict(queries or {})).items():
            (Path(folder) / f"{name}.sql").write_text(f"-- {name}, 100%.\n{sql}\n")
        generous = {
            "pool_size": 2,
            "acquire_timeout_ms": 15_000,
            "query_timeout_ms": 15_000,
            "slow_query_ms": 60_000,
        }
        database = Database(url, queries_folder=Path(folder), **(generous | options))
    await database.start()
    try:
        yield database
    finally:
        await database.close(grace_seconds=1)


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, over a connection that has nothing to do with the one under test."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def count_running(url: str, part: str) -> int:
    """How many sessions of the service run, or have last run, a statement with these words in it."""
    rows = ask(
        url,
        "SELECT query FROM pg_stat_activity WHERE application_name = 'mastery' "
        "AND datname = current_database() AND state <> 'idle'",
    )
    return sum(part in query for (query,) in rows)

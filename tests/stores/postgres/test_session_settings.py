"""The settings that every query relies on hold in each version of PostgreSQL, and behind a pooler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.development import EmbeddedServer, find_postgres_folder, postgres_server
from server.stores.postgres.database import Database, DatabaseUnavailable
from tests.conftest import FAST_POSTGRES
from tests.stores.postgres.databases import count_running, open_database
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres_wire import PostgresWire, through
from tests.support.waiting import wait_until

NEVER_SECONDS = 600
QUERIES = {
    "get_settings": """
        SELECT current_setting('TimeZone') AS zone, current_setting('statement_timeout') AS timeout,
               current_setting('client_connection_check_interval') AS check_interval
    """,
    "spoil": "SET statement_timeout = 0; SET TimeZone = 'Asia/Tokyo'",
    "get_percent": "SELECT 'a %% sign' AS text, %(number)s AS number",
}
EXPECTED = {"zone": "UTC", "timeout": "16s", "check_interval": "500ms"}


def postgres_folders() -> list[Path]:
    """The binaries of each PostgreSQL on this machine, 15 and newer."""
    bundled = find_postgres_folder()
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = [bundled, bundled.parents[1] / "pginstall18" / "bin"]
    found += [path for path in installed if int(path.parent.name) >= 15]
    return [path for path in found if (path / "postgres").exists()]


@pytest.fixture(params=postgres_folders(), ids=lambda path: path.parent.name)
def any_postgres(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A PostgreSQL that belongs to one test, once for each version on this machine."""
    folder = tmp_path / "postgres"
    with postgres_server(folder, binaries=request.param, options=FAST_POSTGRES) as server:
        yield server


@pytest.fixture
def pooler_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """The test's database behind a PgBouncer in transaction mode, whose two sessions everybody shares."""
    with pgbouncer(tmp_path, database_url, default_pool_size="2") as url:
        yield url


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    """A database with the queries of these tests."""
    async with open_database(url, QUERIES, **options) as database:
        yield database


async def everywhere(database: Database) -> list[dict[str, Any] | None]:
    """The settings in a query of its own, in a transaction, and in several sessions at once."""
    alone = await database.fetch_one("get_settings")
    async with database.transaction() as first, database.transaction(isolation="serializable") as second:
        return [alone, await first.fetch_one("get_settings"), await second.fetch_one("get_settings")]


async def test_deploy_08_every_version_has_the_settings(any_postgres: EmbeddedServer) -> None:
    """PostgreSQL 15 to 18 take the settings as start-up options, and pings and writes work there."""
    async with opened(any_postgres.url) as database:
        assert [EXPECTED] * 3 == await everywhere(database)
        await database.ping()


async def test_deploy_08_a_server_that_refuses_options(
    shared_postgres: EmbeddedServer, database_url: str
) -> None:
    """It is asked once; then each session is sent the settings, and nobody is warned of anything."""
    async with PostgresWire(shared_postgres.port).open() as wire:
        wire.refuses_options = True
        with capture_logs() as logs:
            async with opened(through(wire, database_url)) as database:
                assert [EXPECTED] * 3 == await everywhere(database)
        assert [True, False, False] == [b"\0options\0" in startup for startup in wire.startups]
    assert ["database.options_refused"] == [entry["event"] for entry in logs]


async def test_deploy_08_the_settings_hold_behind_pgbouncer(pooler_url: str) -> None:
    """Behind PgBouncer in transaction mode, whatever others have set in the sessions that are shared."""
    async with opened(pooler_url) as database:
        assert [EXPECTED] * 3 == await everywhere(database)
        for _ in range(4):
            await database.execute("spoil")
            assert [EXPECTED] * 3 == await everywhere(database)


async def test_deploy_08_pgbouncer_that_ignores_options(database_url: str, tmp_path: Path) -> None:
    """PgBouncer may be told to swallow start-up options; the settings hold all the same."""
    with pgbouncer(tmp_path, database_url, ignore_startup_parameters="options") as url:
        async with opened(url) as database:
            assert [EXPECTED] * 3 == await everywhere(database)


async def test_deploy_08_queries_work_behind_pgbouncer(pooler_url: str) -> None:
    """Rows, counts, parameters and percent signs are those of the query, not of what came before it."""
    async with opened(pooler_url) as database:
        assert {"text": "a % sign", "number": 7} == await database.fetch_one("get_percent", number=7)
        assert 1 == await database.execute("add_class", name="100%")
        async with database.transaction() as transaction:
            assert 1 == await transaction.execute("add_class", name="B")
        assert [{"name": "100%"}, {"name": "B"}] == await database.fetch_all("list_names")


async def test_deploy_08_the_servers_timeout_holds_behind_pgbouncer(pooler_url: str) -> None:
    """statement_timeout ends a statement there, and the URL's own options count there too."""
    async with opened(f"{pooler_url}?options=-c%20statement_timeout%3D50") as database:
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.fetch_all("sleep", seconds=NEVER_SECONDS)
        assert ("timeout", False) == (caught.value.reason, caught.value.outcome_unknown)
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            async with database.transaction() as transaction:
                await transaction.fetch_all("sleep", seconds=NEVER_SECONDS)


async def test_deploy_08_a_cancelled_query_ends_behind_pgbouncer(database_url: str, pooler_url: str) -> None:
    """The server notices there, too, that nobody wants the answer any more."""
    async with opened(pooler_url, query_timeout_ms=100_000) as database:
        task = asyncio.create_task(database.fetch_all("sleep", seconds=NEVER_SECONDS))
        await wait_until(lambda: count_running(database_url, "query=sleep") == 1, "it runs")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_until(lambda: count_running(database_url, "query=sleep") == 0, "the server stops")

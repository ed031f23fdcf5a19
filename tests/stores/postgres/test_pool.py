"""The pool of connections: it grows when it must, makes do with what there is, gives back what it does not need."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

import psycopg2
import pytest
from structlog.testing import capture_logs

from server.stores.postgres.connection import Connection
from server.stores.postgres.database import Database, DatabaseUnavailable
from server.stores.postgres.pool import ConnectionPool, Connector
from tests.conftest import run_sql
from tests.stores.postgres.databases import ask, open_database
from tests.support.postgres_wire import PostgresWire, through
from tests.support.waiting import wait_until

PATIENCE_MS = 15_000


@pytest.fixture
def limited_url(database_url: str) -> Iterator[str]:
    """The test's database as a role that may have four connections at once."""
    role, password = f"limited_{secrets.token_hex(6)}", secrets.token_hex(16)
    run_sql(database_url, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 4 PASSWORD '{password}'")
    address = urlsplit(database_url)
    yield f"postgresql://{role}:{password}@127.0.0.1:{address.port}{address.path}"
    run_sql(database_url, f"DROP ROLE {role}")


@contextlib.asynccontextmanager
async def open_pool(url: str, **options: Any) -> AsyncIterator[ConnectionPool]:
    """A pool of ten connections at most, closed at the end."""
    connector = Connector(url, connect_timeout_ms=PATIENCE_MS, query_timeout_ms=PATIENCE_MS)
    pool = ConnectionPool(connector.connect, size=10, acquire_timeout_ms=PATIENCE_MS, **options)
    try:
        yield pool
    finally:
        await pool.close(grace_seconds=1)


async def take(pool: ConnectionPool, count: int) -> None:
    """Hold so many connections at once, and give them back."""
    held = [await pool.acquire() for _ in range(count)]
    for connection in held:
        pool.release(connection)


def role_of(url: str) -> str:
    """The role that a URL names."""
    return str(urlsplit(url).username)


async def test_deploy_02_fewer_connections_than_the_pool(limited_url: str) -> None:
    """Ten are configured and four are to be had: every request is served by these four, and the log says so once."""
    with capture_logs() as logs:
        async with open_database(limited_url, pool_size=10) as database:

            async def client() -> None:
                for _ in range(10):
                    await database.fetch_all("sleep", seconds=0.001)

            await asyncio.gather(*(client() for _ in range(8)))
            assert 4 == database.pool.open
    refusals = [
        entry for entry in logs if entry["event"] in {"database.growth_refused", "database.unavailable"}
    ]
    assert ["database.growth_refused"] == [entry["event"] for entry in refusals]
    assert ("too_many_connections", 10) == (refusals[0]["error"], refusals[0]["pool_size"])


async def test_deploy_02_the_pool_grows_again_later(database_url: str, limited_url: str) -> None:
    """A ceiling that was raised is found out, without a restart."""
    async with open_pool(limited_url, growth_retry_seconds=0.01) as pool:
        held = [await pool.acquire() for _ in range(4)]
        fifth = asyncio.create_task(pool.acquire())
        await wait_until(lambda: pool._retry_at is not None, "the growth is refused")
        run_sql(database_url, f"ALTER ROLE {role_of(limited_url)} CONNECTION LIMIT 6")
        pool.release(held.pop())
        held.append(await fifth)

        async def has_grown() -> bool:
            acquired = asyncio.create_task(pool.acquire())
            done, _ = await asyncio.wait([acquired], timeout=0.05)
            if not done:
                acquired.cancel()
                return False
            held.append(acquired.result())
            return len(held) == 6

        await wait_until(has_grown, "the pool has six")
        assert 6 == pool.open
        for connection in held:
            pool.release(connection)


async def test_a_growth_that_works_ends_the_making_do(database_url: str) -> None:
    """After a refusal one connection is tried at a time; once that is there, as many at once as are needed."""
    at_once: list[int] = []
    async with open_pool(database_url, growth_retry_seconds=0) as pool:
        connect = pool._connect
        first = await pool.acquire()

        async def refuse() -> NoReturn:
            raise DatabaseUnavailable("too_many_connections")

        async def count() -> Connection:
            at_once.append(len(pool._opening))
            return await connect()

        pool._connect = refuse
        waiting = [asyncio.create_task(pool.acquire())]
        await wait_until(lambda: pool._retry_at is not None, "the growth is refused")
        pool._connect = count
        waiting += [asyncio.create_task(pool.acquire()) for _ in range(4)]
        for connection in [first, *await asyncio.gather(*waiting)]:
            pool.release(connection)
    assert [1, 4, 4, 4, 4] == at_once


async def test_deploy_02_idle_connections_are_closed(database_url: str, limited_url: str) -> None:
    """After a burst all but one go back to the server, where a migration finds room again."""
    async with open_pool(limited_url, idle_seconds=0.05) as pool:
        await take(pool, 4)
        await wait_until(lambda: pool.open == 1, "all but one are closed")
        sessions = "SELECT usename FROM pg_stat_activity"
        role = role_of(limited_url)
        await wait_until(
            lambda: ask(database_url, sessions).count((role,)) == 1, "the server has let them go"
        )
        with contextlib.closing(psycopg2.connect(limited_url)):
            await take(pool, 1)


async def test_deploy_02_what_is_needed_is_not_idle(database_url: str) -> None:
    """Connections that were in use at any time of the period stay: only those that nobody needed are closed."""
    async with open_pool(database_url, idle_seconds=600) as pool:
        await take(pool, 5)
        assert pool._idle_timer is not None
        pool._idle_timer.cancel()
        pool._close_idle()  # the timer was set when they were opened: all five were in use then
        assert 5 == pool.open
        await take(pool, 3)
        pool._close_idle()
        assert 3 == pool.open


async def test_deploy_02_a_growth_without_an_answer_holds_nobody(database_url: str) -> None:
    """While a new connection hangs, a caller takes the one that comes back."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        wire = PostgresWire(urlsplit(database_url).port or 0)
        async with wire.open(), open_pool(through(wire, database_url)) as pool:
            first = await pool.acquire()
            wire.target_port = silent.getsockname()[1]
            second = asyncio.create_task(pool.acquire())
            await wait_until(lambda: pool.waiters == 1, "a second caller waits")
            pool.release(first)
            assert first is await second
            pool.release(first)


async def test_deploy_02_without_any_connection_the_reason_is_given(limited_url: str) -> None:
    """Who has not even one connection learns at once that there are too many of others."""
    with contextlib.ExitStack() as others:
        for _ in range(4):
            others.enter_context(contextlib.closing(psycopg2.connect(limited_url)))
        async with open_database(limited_url) as database:
            with pytest.raises(DatabaseUnavailable) as caught:
                await database.ping()
            assert "too_many_connections" == caught.value.reason
            others.close()

            async def answers() -> bool:
                with contextlib.suppress(DatabaseUnavailable):
                    await database.ping()
                    return True
                return False

            await wait_until(answers, "it has found room")


async def test_deploy_02_the_start_warns_of_a_limit(limited_url: str) -> None:
    """Two workers of ten connections want more than a role of four has: the log says so, and what would fit."""
    database = Database(limited_url, pool_size=10)
    with capture_logs() as logs:
        await database.warn_of_limits(workers=2)
    await database.close()
    (warning,) = [entry for entry in logs if entry["event"] == "database.pool_exceeds_limit"]
    assert (2, 10, 4) == (warning["workers"], warning["pool_size"], warning["limit"])
    assert "DATABASE_POOL_SIZE=2 fits" in warning["detail"]


async def test_deploy_02_the_start_says_nothing_where_all_fit(limited_url: str) -> None:
    """One worker of four connections fits into a limit of four."""
    database = Database(limited_url, pool_size=4)
    with capture_logs() as logs:
        await database.warn_of_limits(workers=1)
    await database.close()
    assert [] == logs


async def test_deploy_02_renewed_connections_are_others(database_url: str) -> None:
    """After a renewal neither a free connection nor one that was in use is used again."""
    async with open_pool(database_url) as pool:
        first, second = await pool.acquire(), await pool.acquire()
        pool.release(first)
        pool.renew()
        assert not pool._free  # those that are closed are not counted as idle
        pool.release(second)
        third = await pool.acquire()
        assert (True, True, False) == (first.closed, second.closed, third.closed)
        pool.release(third)
        assert 1 == pool.open

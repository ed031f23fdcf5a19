"""One statement on one connection: sent whole, answered whole, and given up when that takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version

import psycopg2
import pytest
from psycopg2.errors import QueryCanceled

from server.stores.postgres.connection import Connection
from tests.stores.postgres.databases import ask
from tests.support.waiting import wait_until

PATIENCE_SECONDS = 15.0
# More than the sockets of both ends hold.
LONG = "x" * 12_000_000


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """A connection to the test's database."""
    opened = Connection(database_url, PATIENCE_SECONDS, enable_hstore=False)
    await opened
    yield opened
    opened.close()


async def value(connection: Connection, sql: str, *, seconds: float = PATIENCE_SECONDS) -> object:
    """The first value of a statement's answer."""
    row = (await connection.run(sql, None, timeout_seconds=seconds)).fetchone()
    return None if row is None else row[0]


async def test_what_does_not_fit_into_the_socket_goes_in_pieces(connection: Connection) -> None:
    """Both ways: the statement is written when there is room, and its answer put together."""
    cursor = await connection.run("SELECT %(text)s || '!'", {"text": LONG}, timeout_seconds=PATIENCE_SECONDS)
    row = cursor.fetchone()
    assert row is not None
    assert LONG + "!" == row[0]
    assert 1 == await value(connection, "SELECT 1")


async def test_a_failed_statement_leaves_the_connection_as_it_was(connection: Connection) -> None:
    """Whether the server refuses it or the driver does: the next statement runs."""
    with pytest.raises(psycopg2.Error):
        await value(connection, "SELECT nothing_of_this_name")
    with pytest.raises(ValueError, match="NUL"):
        await connection.run("SELECT %(text)s", {"text": "\0"}, timeout_seconds=PATIENCE_SECONDS)
    assert 1 == await value(connection, "SELECT 1")


async def test_what_the_server_cancels_is_an_error_of_the_statement(connection: Connection) -> None:
    """Nobody's task is cancelled, and the connection stays."""
    with pytest.raises(QueryCanceled):
        await value(connection, "SET LOCAL statement_timeout = 20; SELECT pg_sleep(60)")
    assert 1 == await value(connection, "SELECT 1")


async def test_a_late_answer_is_not_waited_for(connection: Connection) -> None:
    """The connection is closed, for the answer to come would be taken for that of the next statement."""
    with pytest.raises(TimeoutError):
        await value(connection, "SELECT pg_sleep(60) /* late */", seconds=0.02)
    assert connection.closed


async def test_a_cancelled_caller_takes_the_connection_along(
    connection: Connection, database_url: str
) -> None:
    """The cancellation stays one."""
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* cancelled */'"
    task = asyncio.create_task(value(connection, "SELECT pg_sleep(60) /* cancelled */"))
    await wait_until(lambda: ask(database_url, running) == [(1,)], "it runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.closed


@pytest.mark.parametrize("is_by_server", [False, True])
async def test_a_connection_that_is_closed_meanwhile_fails_its_statement(
    connection: Connection, database_url: str, is_by_server: bool
) -> None:
    """Such as by a pool that shuts down, or by the server."""
    pid = connection.raw.get_backend_pid()
    task = asyncio.create_task(value(connection, "SELECT pg_sleep(60)"))
    running = f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid = {pid}"  # noqa: S608 - a number
    await wait_until(lambda: ask(database_url, running) == [(1,)], "it runs")
    if is_by_server:
        ask(database_url, f"SELECT pg_terminate_backend({pid})")
    else:
        connection.close()
    with pytest.raises(psycopg2.Error):
        await task
    assert connection.closed


async def test_two_statements_at_once_are_a_mistake(connection: Connection) -> None:
    """The second is refused, and the first goes on."""
    first = asyncio.create_task(value(connection, "SELECT pg_sleep(0.05)"))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already waiting"):
        await value(connection, "SELECT 1")
    assert "" == await first


def test_the_release_of_aiopg_is_the_one_that_was_read() -> None:
    """`Connection` uses its waiter, and what reads and writes the socket, which are private."""
    assert version("aiopg").startswith("1.4.")

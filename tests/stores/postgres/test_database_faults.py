"""What happens when the database is slow, away or lost, and when whoever asked goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from server.development import EmbeddedServer, free_port, postgres_server
from server.stores.postgres import database as database_module
from server.stores.postgres.database import DatabaseReadOnly, DatabaseUnavailable
from tests.conftest import FAST_POSTGRES
from tests.stores.postgres.databases import ask, count_running, open_database
from tests.support.postgres_wire import PostgresWire, through
from tests.support.waiting import wait_until

NEVER_SECONDS = 600


@pytest.fixture
async def wire(shared_postgres: EmbeddedServer) -> AsyncIterator[PostgresWire]:
    """A wire to the session's PostgreSQL that belongs to one test."""
    async with PostgresWire(shared_postgres.port).open() as wire:
        yield wire


async def test_connections_to_a_database_that_takes_no_writes_are_renewed_once_a_second(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new session may write again; but a database that stays read-only is not flooded with new ones."""
    now = 1000.0
    monkeypatch.setattr(database_module, "monotonic", lambda: now)
    queries = {
        "forbid_writes": "SET default_transaction_read_only = on",
        "ping": "SELECT current_setting('transaction_read_only')::boolean AS is_read_only",
    }
    async with open_database(database_url, queries, pool_size=1) as database:

        async def is_renewed_after(attempt: Callable[[], Awaitable[object]]) -> bool:
            await database.execute("forbid_writes")
            before = await database.fetch_one("get_pid")
            with pytest.raises(DatabaseReadOnly):
                await attempt()
            return before != await database.fetch_one("get_pid")

        for attempt in (lambda: database.execute("add_class", name="Biology"), database.check):
            now += 1
            assert await is_renewed_after(attempt)
            now += 0.9
            assert not await is_renewed_after(attempt)


async def cancel(task: asyncio.Task[object]) -> None:
    """Cancel a task and see that it ends as cancelled."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_waiter_gets_the_slot_of_a_cancelled_holder(database_url: str) -> None:
    """A connection that comes back closed makes room at once; aiopg's own pool forgets who waits."""
    async with open_database(
        database_url, pool_size=1, acquire_timeout_ms=100_000, query_timeout_ms=100_000
    ) as database:
        holder = asyncio.create_task(database.fetch_all("sleep", seconds=NEVER_SECONDS))
        await wait_until(lambda: count_running(database_url, "query=sleep") == 1, "the holder runs")
        waiter = asyncio.create_task(database.fetch_one("ping"))
        await wait_until(lambda: database.pool.waiters == 1, "the waiter waits")
        await cancel(holder)
        assert {"answer": 1} == await asyncio.wait_for(waiter, timeout=20)
        assert (0, 0) == (database.pool.in_use, database.pool.waiters)


async def test_a_cancelled_waiter_leaves_the_queue(database_url: str) -> None:
    """Somebody who gives up waiting takes no slot along, even if it was just about to be his."""
    async with open_database(database_url, pool_size=1) as database:
        async with database.transaction():
            waiters = [asyncio.create_task(database.fetch_one("ping")) for _ in range(3)]
            await wait_until(lambda: database.pool.waiters == 3, "three wait")
            await cancel(waiters[0])
        waiters[1].cancel()
        assert {"answer": 1} == await waiters[2]
        await asyncio.gather(*waiters, return_exceptions=True)
        assert (0, 0) == (database.pool.in_use, database.pool.waiters)
        assert {"answer": 1} == await database.fetch_one("ping")


async def test_an_exhausted_pool_says_so(database_url: str) -> None:
    """Who gets no connection in time is told pool_exhausted, which answers as 503."""
    async with open_database(database_url, pool_size=1) as database, database.transaction():
        database.pool._acquire_timeout_seconds = 0.05  # not before there is a connection
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.fetch_one("ping")
    assert "pool_exhausted" == caught.value.reason
    assert 503 == caught.value.status


async def test_the_servers_timeout_is_no_cancellation(database_url: str) -> None:
    """statement_timeout, which aiopg reports as a bare CancelledError, is a timeout, and cancels nobody."""
    url = f"{database_url}?options=-c%20statement_timeout%3D50"
    async with open_database(url) as database:
        pid = await database.fetch_one("get_pid")
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.fetch_all("sleep", seconds=NEVER_SECONDS)
        assert "timeout" == caught.value.reason
        assert not caught.value.outcome_unknown
        assert pid == await database.fetch_one("get_pid"), "the connection is still good"


async def test_a_real_cancellation_stays_one(database_url: str) -> None:
    """Cancelling a task ends it as cancelled, also when the cancellation comes from a timeout around it."""
    async with open_database(database_url) as database:
        task = asyncio.create_task(database.fetch_all("sleep", seconds=NEVER_SECONDS))
        await wait_until(lambda: count_running(database_url, "query=sleep") == 1, "it runs")
        await cancel(task)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await database.fetch_all("sleep", seconds=NEVER_SECONDS)


async def test_a_cancelled_query_ends_on_the_server(database_url: str) -> None:
    """The server notices within its check interval that nobody wants the answer any more."""
    async with open_database(database_url, query_timeout_ms=100_000) as database:
        task = asyncio.create_task(database.fetch_all("sleep", seconds=NEVER_SECONDS))
        await wait_until(lambda: count_running(database_url, "query=sleep") == 1, "it runs")
        await cancel(task)
        await wait_until(lambda: count_running(database_url, "query=sleep") == 0, "the server stops")


async def test_the_clients_timeout_comes_before_the_servers(database_url: str) -> None:
    """The client gives up by itself, with an outcome that it can't know; the server's limit lies above."""
    async with open_database(
        database_url, {"get_limit": "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'"},
        query_timeout_ms=300,
    ) as database:  # fmt: skip
        assert {"setting": 1300} == await database.fetch_one("get_limit")
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.fetch_all("sleep", seconds=NEVER_SECONDS)
        assert ("timeout", True) == (caught.value.reason, caught.value.outcome_unknown)
        assert {"answer": 1} == await database.fetch_one("ping")


async def test_every_connection_has_the_settings(database_url: str) -> None:
    """Sessions are in UTC, are known by name, and are checked for a client that has gone."""
    sql = """
        SELECT current_setting('TimeZone') AS zone, current_setting('application_name') AS name,
               current_setting('client_connection_check_interval') AS check_interval
    """
    async with open_database(database_url, {"get_settings": sql}) as database:
        row = await database.fetch_one("get_settings")
    assert {"zone": "UTC", "name": "mastery", "check_interval": "500ms"} == row


async def test_a_silent_server_holds_nobody_longer_than_agreed() -> None:
    """A host that accepts and says nothing costs each caller its own deadline, not that of others too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://mastery@127.0.0.1:{port}/mastery"
        async with open_database(url, pool_size=3, acquire_timeout_ms=300) as database:
            loop = asyncio.get_running_loop()
            started = loop.time()
            outcomes = await asyncio.gather(
                *(database.fetch_one("ping") for _ in range(9)), return_exceptions=True
            )
            took_seconds = loop.time() - started
    reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, DatabaseUnavailable)}
    assert 9 == sum(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes)
    assert {"timeout", "pool_exhausted"} >= reasons
    assert took_seconds < 5, "nine callers in line after one another would be longer"


async def test_it_starts_without_a_server_and_finds_it_later(
    database_url: str, shared_postgres: EmbeddedServer
) -> None:
    """A database that is away is a warning at the start and a 503 afterwards, until it is back."""
    wire = PostgresWire(shared_postgres.port)
    wire.port = free_port()
    with capture_logs() as logs:
        async with open_database(through(wire, database_url)) as database:
            with pytest.raises(DatabaseUnavailable) as caught:
                await database.ping()
            assert "refused" == caught.value.reason
            async with wire.open(wire.port):
                await database.ping()
    assert ["database.unavailable", "database.recovered"] == [entry["event"] for entry in logs]
    assert "refused" == logs[0]["error"]


async def test_it_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    """Connections that died while nobody used them are noticed, and replaced without an error for anyone."""
    async with contextlib.AsyncExitStack() as stack:
        with postgres_server(tmp_path / "postgres", options=["fsync=off"]) as server:
            wire = await stack.enter_async_context(PostgresWire(server.port).open())
            database = await stack.enter_async_context(open_database(through(wire, server.url), pool_size=3))
            await asyncio.gather(*(database.ping() for _ in range(3)))
            assert 3 == len(wire.startups)
        await wait_until(lambda: all(c.closed for c in database.pool._free), "the loss is noticed")
        with postgres_server(tmp_path / "postgres", options=["fsync=off"]) as server:
            wire.target_port = server.port
            await asyncio.gather(*(database.ping() for _ in range(3)))


async def test_an_ended_session_costs_one_answer(database_url: str) -> None:
    """A query whose session an administrator ends is told as closed; the next one has a new connection."""
    async with open_database(database_url) as database:
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.fetch_all("end_own_session")
        assert "closed" == caught.value.reason
        assert {"answer": 1} == await database.fetch_one("ping")


async def test_a_cut_wire_leaves_the_outcome_unknown(database_url: str, wire: PostgresWire) -> None:
    """A write whose answer is lost may have happened, and the error says so."""
    async with open_database(through(wire, database_url)) as database:
        wire.cut_after = b"INSERT INTO classes"
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.execute("add_class", name="Maybe")
    assert ("closed", True) == (caught.value.reason, caught.value.outcome_unknown)
    assert [("Maybe",)] == ask(database_url, "SELECT name FROM classes")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("mastery:", "nobody:"), "rejected"),
        (("/test_", "/no_test_"), "rejected"),
        (("127.0.0.1", "no-such-host.invalid"), "unresolved"),
    ],
)
async def test_why_there_is_no_connection(database_url: str, change: tuple[str, str], reason: str) -> None:
    """The reason is a short word that an operator can act on; the driver's text is for the log."""
    async with open_database(database_url.replace(*change)) as database:
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.ping()
    assert reason == caught.value.reason
    assert "The database is not available; try again shortly." == caught.value.detail


async def test_the_second_address_of_a_host_is_tried(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with a dead address and a good one works; aiopg alone would wait on the dead one's socket."""
    loop = asyncio.get_running_loop()
    host = "two-addresses.example"
    entries = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.9", "127.0.0.1")
    ]

    async def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        await asyncio.sleep(0)
        return [*entries]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with open_database(database_url.replace("127.0.0.1", host)) as database:
        assert {"answer": 1} == await database.fetch_one("ping")


async def test_the_second_host_of_a_url_is_tried(database_url: str) -> None:
    """A URL with two hosts, as failover set-ups have it, works while the first is away."""
    address, _, name = database_url.rpartition("/")
    credentials, _, place = address.rpartition("@")
    url = f"{credentials}@127.0.0.1:{free_port()},{place}/{name}"
    async with open_database(url) as database:
        assert {"answer": 1} == await database.fetch_one("ping")


async def test_closing_waits_for_a_running_query(database_url: str) -> None:
    """A query that is running when the service stops gets its answer."""
    async with open_database(database_url, query_timeout_ms=100_000) as database:
        task = asyncio.create_task(database.fetch_all("sleep", seconds=0.2))
        await wait_until(lambda: database.pool.in_use == 1, "it runs")
        await database.close(grace_seconds=20)
        assert 1 == len(await task)
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await database.fetch_one("ping")


async def test_closing_ends_what_takes_too_long(database_url: str) -> None:
    """After its grace the pool closes connections under their users, and nothing is left on the server."""
    async with open_database(database_url, pool_size=1, query_timeout_ms=100_000) as database:
        task = asyncio.create_task(database.fetch_all("sleep", seconds=NEVER_SECONDS))
        await wait_until(lambda: count_running(database_url, "query=sleep") == 1, "it runs")
        waiter = asyncio.create_task(database.fetch_one("ping"))
        await wait_until(lambda: database.pool.waiters == 1, "another one waits")
        await database.close(grace_seconds=0.05)
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await task
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await waiter
    await wait_until(lambda: count_running(database_url, "query=sleep") == 0, "the server stops")


def test_the_death_of_the_server_under_uvloop(tmp_path: Path) -> None:
    """uvloop, which production runs on, keeps dead handles of sockets that libpq closed: they get in nobody's way."""

    async def ask_a_dead_server(server: EmbeddedServer) -> list[str]:
        async with open_database(server.url, {"one": "SELECT 1 AS one"}, pool_size=6) as database:
            await asyncio.gather(*(database.fetch_one("one") for _ in range(6)))
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(server.process.wait)
            reasons = []
            for _ in range(12):
                with pytest.raises(DatabaseUnavailable) as caught:
                    await database.fetch_one("one")
                reasons.append(caught.value.reason)
            return reasons

    with postgres_server(tmp_path / "postgres", options=FAST_POSTGRES) as server:
        reasons = uvloop.run(ask_a_dead_server(server))
    assert "refused" == reasons[-1]

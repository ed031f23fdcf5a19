"""Several queries together or not at all, and connections that never come back in the middle of something."""

# ruff: noqa: PT012 - what raises is a transaction, and a transaction is a block

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from structlog.testing import capture_logs

from server.development import EmbeddedServer
from server.errors import NotFound
from server.stores.postgres.database import (
    ConstraintViolated,
    Database,
    DatabaseUnavailable,
    QueryFailed,
    Transaction,
)
from server.stores.postgres.queries import QUERIES_FOLDER, load_queries
from tests.stores.postgres.databases import ask, count_running, open_database
from tests.support.postgres_wire import PostgresWire, through
from tests.support.waiting import wait_until

NEVER_SECONDS = 600
COUNTERS = {
    "read_counter": "SELECT sort_order FROM classes WHERE name = %(name)s",
    "write_counter": "UPDATE classes SET sort_order = %(value)s WHERE name = %(name)s",
}


@pytest.fixture
async def wire(shared_postgres: EmbeddedServer) -> AsyncIterator[PostgresWire]:
    """A wire to the session's PostgreSQL that belongs to one test."""
    async with PostgresWire(shared_postgres.port).open() as wire:
        yield wire


async def names(database: Database) -> list[str]:
    return [row["name"] for row in await database.fetch_all("list_names")]


async def test_a_transaction_is_committed_at_its_end(database_url: str) -> None:
    """What the block wrote is there for others when it has ended, and not before."""
    async with open_database(database_url) as database:
        async with database.transaction() as transaction:
            assert 1 == await transaction.execute("add_class", name="Biology")
            assert {"name": "Biology"} == await transaction.fetch_one("list_names")
            assert [] == await names(database)
        assert ["Biology"] == await names(database)


async def test_an_error_in_the_block_undoes_all_of_it(database_url: str) -> None:
    """An exception of the caller's rolls back, goes on its way unchanged, and the connection stays good."""
    async with open_database(database_url, pool_size=1) as database:
        pid = await database.fetch_one("get_pid")
        with pytest.raises(NotFound):
            async with database.transaction() as transaction:
                await transaction.execute("add_class", name="Biology")
                raise NotFound
        assert [] == await names(database)
        assert pid == await database.fetch_one("get_pid")


async def test_a_failed_query_undoes_all_of_it(database_url: str) -> None:
    """A violated constraint in the middle takes what came before it along."""
    async with open_database(database_url, pool_size=1) as database:
        with pytest.raises(ConstraintViolated, match="classes_name_length"):
            async with database.transaction() as transaction:
                await transaction.execute("add_class", name="Biology")
                await transaction.execute("add_class", name="")
        assert [] == await names(database)


async def test_going_on_after_a_failed_query_is_no_commit(database_url: str) -> None:
    """PostgreSQL answers such a COMMIT with a quiet ROLLBACK; here it is an error."""
    async with open_database(database_url, pool_size=1) as database:
        with pytest.raises(QueryFailed, match="had failed"):
            async with database.transaction() as transaction:
                await transaction.execute("add_class", name="Biology")
                with pytest.raises(ConstraintViolated):
                    await transaction.execute("add_class", name="")
        assert [] == await names(database)


async def test_a_constraint_that_waits_for_the_commit_is_told(database_url: str) -> None:
    """A deferred constraint fails at COMMIT: as the same error, and the connection stays good."""
    ask(
        database_url,
        "ALTER TABLE classes ADD CONSTRAINT classes_name_once UNIQUE (name) DEFERRABLE INITIALLY DEFERRED",
    )
    async with open_database(database_url, pool_size=1) as database:
        pid = await database.fetch_one("get_pid")
        with pytest.raises(ConstraintViolated, match="classes_name_once"):
            async with database.transaction() as transaction:
                await transaction.execute("add_class", name="Twice")
                await transaction.execute("add_class", name="Twice")
        assert [] == await names(database)
        assert pid == await database.fetch_one("get_pid")


async def test_a_transaction_is_over_after_its_block(database_url: str) -> None:
    """A handle that outlives its block runs nothing: its connection is somebody else's by then."""
    async with open_database(database_url) as database:
        async with database.transaction() as transaction:
            pass
        with pytest.raises(RuntimeError, match="ended"):
            await transaction.execute("add_class", name="Late")


async def test_the_isolation_level_is_the_callers_choice(database_url: str) -> None:
    """A transaction runs at the level that was asked for."""
    show = {"get_level": "SELECT current_setting('transaction_isolation') AS level"}
    async with open_database(database_url, show) as database:
        async with database.transaction(isolation="serializable") as transaction:
            assert {"level": "serializable"} == await transaction.fetch_one("get_level")
        async with database.transaction() as transaction:
            assert {"level": "read committed"} == await transaction.fetch_one("get_level")


async def test_a_handler_cancelled_in_a_transaction_leaves_none_behind(database_url: str) -> None:
    """Cancelled between two queries: nothing is written, the slot is free, no session idles in a transaction."""
    reached = asyncio.Event()

    async def handle(database: Database) -> None:
        async with database.transaction() as transaction:
            await transaction.execute("add_class", name="Half")
            reached.set()
            await asyncio.Event().wait()

    async with open_database(database_url, pool_size=1) as database:
        task = asyncio.create_task(handle(database))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert 0 == database.pool.in_use
        assert [] == await names(database)
        await wait_until(lambda: count_running(database_url, "add_class") == 0, "the session is gone")


async def test_a_handler_cancelled_in_a_query_of_a_transaction_leaves_none_behind(database_url: str) -> None:
    """Cancelled while a query runs: the connection is not given out again, and the server stops the query."""
    async with open_database(database_url, pool_size=1, query_timeout_ms=100_000) as database:
        first = await database.fetch_one("get_pid")

        async def handle() -> None:
            async with database.transaction() as transaction:
                await transaction.execute("add_class", name="Half")
                await transaction.fetch_all("sleep", seconds=NEVER_SECONDS)

        task = asyncio.create_task(handle())
        await wait_until(lambda: count_running(database_url, "query=sleep") == 1, "it runs")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert first != await database.fetch_one("get_pid")
        assert [] == await names(database)
        await wait_until(lambda: count_running(database_url, "query=sleep") == 0, "the server stops")


async def test_a_timeout_of_the_server_in_a_transaction_rolls_it_back(database_url: str) -> None:
    """statement_timeout ends the transaction as unavailable, and its connection is clean again."""
    url = f"{database_url}?options=-c%20statement_timeout%3D50"
    async with open_database(url, pool_size=1) as database:
        pid = await database.fetch_one("get_pid")
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            async with database.transaction() as transaction:
                await transaction.execute("add_class", name="Half")
                await transaction.fetch_all("sleep", seconds=NEVER_SECONDS)
        assert [] == await names(database)
        assert pid == await database.fetch_one("get_pid")


async def test_a_lost_connection_runs_the_transaction_once_more(database_url: str) -> None:
    """run_transaction begins again, as a whole, when its session was ended under it; the log says so."""
    attempts = 0

    async def work(transaction: Transaction) -> int:
        nonlocal attempts
        attempts += 1
        await transaction.execute("add_class", name="Once")
        if attempts == 1:
            await transaction.fetch_all("end_own_session")
        return attempts

    async with open_database(database_url) as database:
        with capture_logs() as logs:
            assert 2 == await database.run_transaction(work)
        assert ["Once"] == await names(database)
    assert [("database.transaction_retried", "closed")] == [(e["event"], e["error"]) for e in logs]


async def test_a_second_loss_is_told(database_url: str) -> None:
    """Once more means once: the second loss is the caller's to know."""
    attempts = 0

    async def work(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await transaction.fetch_all("end_own_session")

    async with open_database(database_url) as database:
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await database.run_transaction(work)
    assert 2 == attempts


async def test_an_error_of_the_domain_is_no_reason_to_run_again(database_url: str) -> None:
    """What the rules refuse is refused at the first attempt."""
    attempts = 0

    async def work(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await transaction.execute("add_class", name="")

    async with open_database(database_url) as database:
        with pytest.raises(ConstraintViolated):
            await database.run_transaction(work)
    assert 1 == attempts


async def test_a_lost_answer_to_the_commit_is_no_reason_to_run_again(
    database_url: str, wire: PostgresWire
) -> None:
    """When COMMIT went out and nothing came back, running again could do it twice: the caller is told."""
    attempts = 0

    async def work(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await transaction.execute("add_class", name="Once")

    async with open_database(through(wire, database_url)) as database:
        wire.cut_after = b"COMMIT"
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.run_transaction(work)
    assert ("closed", True, False) == (
        caught.value.reason,
        caught.value.outcome_unknown,
        caught.value.retryable,
    )
    assert 1 == attempts
    assert [("Once",)] == ask(database_url, "SELECT name FROM classes")


async def test_serialization_failures_run_again(database_url: str) -> None:
    """Two serializable increments of one counter that meet both count."""
    meeting = asyncio.Barrier(2)
    attempts = 0

    async def increment(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        row = await transaction.fetch_one("read_counter", name="Counter")
        assert row is not None
        if attempts <= 2:
            await meeting.wait()
        await transaction.execute("write_counter", name="Counter", value=row["sort_order"] + 1)

    async with open_database(database_url, COUNTERS) as database:
        await database.execute("add_class", name="Counter")
        await asyncio.gather(
            *(database.run_transaction(increment, isolation="serializable") for _ in range(2))
        )
        assert {"sort_order": 2} == await database.fetch_one("read_counter", name="Counter")
    assert 3 == attempts


async def test_a_serialization_failure_of_the_commit_runs_again(database_url: str) -> None:
    """The server says itself that it has not committed: what each has read of the other's row is seen to."""
    read, written = asyncio.Barrier(2), asyncio.Barrier(2)
    attempts = 0

    async def copy(transaction: Transaction, source: str, target: str) -> None:
        nonlocal attempts
        attempts += 1
        is_first = attempts <= 2
        row = await transaction.fetch_one("read_counter", name=source)
        assert row is not None
        if is_first:
            await read.wait()
        await transaction.execute("write_counter", name=target, value=row["sort_order"] + 1)
        if is_first:
            await written.wait()  # from here on nothing but COMMIT can fail

    async with open_database(database_url, COUNTERS) as database:
        for name in ("A", "B"):
            await database.execute("add_class", name=name)
        with capture_logs() as logs:
            await asyncio.gather(
                *(
                    database.run_transaction(
                        partial(copy, source=one, target=other), isolation="serializable"
                    )
                    for one, other in (("A", "B"), ("B", "A"))
                )
            )
        rows = [await database.fetch_one("read_counter", name=name) for name in ("A", "B")]
    assert [1, 2] == sorted(row["sort_order"] for row in rows if row is not None)
    assert (3, ["serialization"]) == (
        attempts,
        [line["error"] for line in logs if line["event"] == "database.transaction_retried"],
    )


async def test_a_longer_deadline_is_the_servers_too(database_url: str) -> None:
    """The server's limit stays a second above ours, and others' queries keep the usual one."""
    queries = {
        "extend_deadline": load_queries(QUERIES_FOLDER)["extend_deadline"].sql,
        "get_limit": "SELECT current_setting('statement_timeout') AS \"limit\"",
    }
    async with open_database(database_url, queries, pool_size=1, query_timeout_ms=15_000) as database:
        async with database.transaction() as transaction:
            await transaction.extend_deadline(60_000)
            assert {"limit": "61s"} == await transaction.fetch_one("get_limit")
        assert {"limit": "16s"} == await database.fetch_one("get_limit")


async def test_deadlocks_run_again(database_url: str) -> None:
    """Of two transactions that wait for each other the victim runs again, and both come through."""
    meeting = asyncio.Barrier(2)
    attempts: list[int] = []

    async def lock_both(transaction: Transaction, first: int, second: int) -> None:
        attempts.append(first)
        await transaction.fetch_one("lock", key=first)
        if attempts.count(first) == 1:
            await meeting.wait()
        await transaction.fetch_one("lock", key=second)

    lock = {
        "lock": "SELECT pg_advisory_xact_lock(%(key)s)"
    }  # given out in the order of asking, unlike a row's
    async with open_database(f"{database_url}?options=-c%20deadlock_timeout%3D50", lock) as database:
        await asyncio.gather(
            database.run_transaction(lambda transaction: lock_both(transaction, 1, 2)),
            database.run_transaction(lambda transaction: lock_both(transaction, 2, 1)),
        )
    assert 3 == len(attempts)

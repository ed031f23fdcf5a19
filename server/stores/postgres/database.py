"""The one way to PostgreSQL: named queries in, rows as dicts out, each one timed, traced and bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Literal, TypeVar

import structlog
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver names its class in lower case

from server.stores.postgres.connection import Connection
from server.stores.postgres.errors import (
    ConstraintViolated,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnavailable,
    QueryFailed,
    SchemaOutdated,
    ValueRefused,
    unavailable,
)
from server.stores.postgres.pool import ConnectionPool, Connector
from server.stores.postgres.queries import QUERIES_FOLDER, OnQuery, QueryRunner, load_queries
from server.telemetry.timings import measure

__all__ = [
    "ConstraintViolated",
    "Database",
    "DatabaseFull",
    "DatabaseReadOnly",
    "DatabaseUnavailable",
    "QueryFailed",
    "SchemaOutdated",
    "Transaction",
    "ValueRefused",
]

log = structlog.get_logger(__name__)

# The server's limit ends what a vanished client left behind: it comes after our own.
_SERVER_GRACE_MS = 1000

Row = dict[str, Any]
Result = TypeVar("Result")
Isolation = Literal["read committed", "repeatable read", "serializable"]

# While the database takes no writes, its connections are replaced at most so often.
_RENEWAL_SECONDS = 1.0


class Transaction:
    """Several queries that happen together or not at all; from `Database.transaction`."""

    def __init__(self, runner: QueryRunner, connection: Connection, begin: str) -> None:
        """Args: begin: what begins it; it travels with the first query."""
        self._runner = runner
        self._begin = begin
        self._connection: Connection | None = connection
        self._ends_at: float | None = None

    async def fetch_all(self, query: str, /, **parameters: Any) -> list[Row]:
        """As `Database.fetch_all`."""
        return await self.run(query, parameters, _rows)

    async def fetch_one(self, query: str, /, **parameters: Any) -> Row | None:
        """As `Database.fetch_one`."""
        return await self.run(query, parameters, _first_row)

    async def execute(self, query: str, /, **parameters: Any) -> int:
        """As `Database.execute`."""
        return await self.run(query, parameters, _row_count)

    async def extend_deadline(self, timeout_ms: float) -> None:
        """Limit the rest of the transaction to `timeout_ms`, in the place of each query: for work known to be long."""
        self._ends_at = asyncio.get_running_loop().time() + timeout_ms / 1000
        await self.execute("extend_deadline", timeout_ms=int(timeout_ms) + _SERVER_GRACE_MS)

    @property
    def has_begun(self) -> bool:
        """Whether there was a query."""
        return not self._begin

    def end(self) -> None:
        """Give up the connection: nothing runs in this transaction any more."""
        self._connection = None

    async def run(self, name: str, parameters: Mapping[str, Any], read: Callable[[Cursor], Result]) -> Result:
        """Run a query, and return what `read` takes from its cursor."""
        if self._connection is None:
            raise RuntimeError("this transaction has ended")
        query = self._runner.queries[name]
        with measure("db"):
            begin, self._begin = self._begin, ""
            return read(
                await self._runner.run(
                    self._connection,
                    query,
                    parameters,
                    final=False,
                    preamble=begin,
                    timeout_seconds=self._seconds_left(),
                )
            )

    def _seconds_left(self) -> float | None:
        if self._ends_at is None:
            return None
        return max(0.001, self._ends_at - asyncio.get_running_loop().time())


class Database:
    """The database: queries by the name of their file in sql/queries/, over a pool of connections.

    It raises no errors of the driver, but those in the module's `__all__`. It starts without its server, and reconnects
    by itself.

    Attributes:
        pool: the connections.
        blocked_by: why nothing but `ping` and `check` may run now, in a word (see `schema`); None if
            everything may.
        on_schema_error: called when a query found a table or a column missing.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        acquire_timeout_ms: float = 1000,
        query_timeout_ms: float = 5000,
        idle_seconds: float = 60,
        slow_query_ms: float = 50,
        on_query: OnQuery | None = None,
        logs_outages: bool = True,
        queries_folder: Path = QUERIES_FOLDER,
    ) -> None:
        """Args: url: `postgresql://` or `postgres://`; pool_size: connections at most.

        acquire_timeout_ms: how long a query waits for a connection, opening one included.
        idle_seconds: unused connections are closed after this time, except for the last one.
        query_timeout_ms: how long a statement may take; the server's own limit lies a second above.
        slow_query_ms: from here on a query is warned of, by its name, never with its parameters.
        on_query: called with a query's name and its seconds, well or failed.
        logs_outages: whether it is logged that the server is down.

        Raises:
            ValueError: the URL is none that PostgreSQL understands.
        """
        self._connector = Connector(
            url, connect_timeout_ms=acquire_timeout_ms, query_timeout_ms=query_timeout_ms
        )
        self.pool = ConnectionPool(
            self._connector.connect,
            size=pool_size,
            acquire_timeout_ms=acquire_timeout_ms,
            idle_seconds=idle_seconds,
            logs_outages=logs_outages,
        )
        self._runner = QueryRunner(
            load_queries(queries_folder),
            query_timeout_ms=query_timeout_ms,
            slow_query_ms=slow_query_ms,
            on_query=on_query,
        )
        self.blocked_by: str | None = None
        self.on_schema_error: Callable[[], None] = lambda: None
        self._is_full = False
        self._renewed_at = -_RENEWAL_SECONDS

    async def start(self) -> None:
        """Open the first connection. A database that is down is logged, and found again by itself."""
        with contextlib.suppress(DatabaseUnavailable):
            await self.ping()

    async def applied_migrations(self) -> frozenset[str]:
        """The names of the migrations that were applied here, even while other queries are blocked.

        Raises:
            DatabaseUnavailable: there is no answer.
        """
        row = await self._run("has_migrations", {}, _first_row, blockable=False)
        if row is None or not row["has_migrations"]:
            return frozenset()
        rows = await self._run("list_migrations", {}, _rows, blockable=False)
        return frozenset(row["name"] for row in rows)

    async def wal_position(self) -> tuple[bool, int | None]:
        """Whether the server is a replica, and how far its log of changes has got, in bytes; None if it does not say.

        It is asked regularly, in the background, and not measured: that would make the queries look fast.

        Raises:
            DatabaseUnavailable: there is no answer.
            QueryFailed: the server has no such log.
        """
        query = self._runner.queries["get_wal_position"]
        async with self._connection(blockable=False) as connection:
            row = _first_row(await self._runner.run_sql(connection, query.name, query.sql, {}, final=False))
        return (False, None) if row is None else (row["is_replica"], row["position"])

    async def warn_of_limits(self, workers: int) -> None:
        """Log a warning if all workers' pools together may open more connections than the server allows.

        Nothing is logged behind a pooler: its limit is not the server's, and can't be asked for.
        """
        with contextlib.suppress(DatabaseUnavailable, QueryFailed):
            row = await self._run("get_connection_limit", {}, _first_row, blockable=False)
            limit = None if row is None else row["connections"]
            if limit is not None and workers * self.pool.size > limit and not self._connector.preamble:
                log.warning(
                    "database.pool_exceeds_limit",
                    workers=workers,
                    pool_size=self.pool.size,
                    limit=limit,
                    detail=f"{workers} workers x DATABASE_POOL_SIZE={self.pool.size} may want more than the "
                    f"{limit} connections there are; DATABASE_POOL_SIZE={max(1, limit // workers)} fits",
                )

    async def close(self, grace_seconds: float = 5.0) -> None:
        """Wait up to `grace_seconds` for running queries, and close all connections."""
        await self.pool.close(grace_seconds)

    async def ping(self) -> None:
        """Ask the server for an answer, even while other queries are blocked.

        Raises:
            DatabaseUnavailable: it gives none.
        """
        await self._run("ping", {}, _rows, blockable=False)

    async def check(self) -> None:
        """Whether the server can do everything that the service needs; health checks call this.

        Raises:
            DatabaseUnavailable: it does not answer, or nothing may run, see `blocked_by`.
            DatabaseReadOnly: it answers, but takes no writes.
            DatabaseFull: the same, as its disk is full.
        """
        row = await self._run("ping", {}, _first_row, blockable=False)
        if self.blocked_by is not None:
            raise unavailable(self.blocked_by)
        if row is not None and row.get("is_read_only"):
            self._renew_connections()
            raise DatabaseReadOnly("read_only")
        if self._is_full:
            await self._probe_room()

    async def fetch_all(self, query: str, /, **parameters: Any) -> list[Row]:
        """The rows of a query, each a dict by column name.

        Args:
            query: the name of its file in sql/queries/, without folder and `.sql`.
            parameters: exactly those that it names; a dict becomes jsonb, a list an array.

        Raises:
            KeyError: there is no such query.
            DatabaseUnavailable: no connection, no answer in time, or the connection was lost.
            ConstraintViolated: a write that the schema forbids.
            ValueRefused: a value that its column can't hold.
        """
        return await self._run(query, parameters, _rows)

    async def fetch_one(self, query: str, /, **parameters: Any) -> Row | None:
        """The first row of a query, or None without any. Arguments and errors as `fetch_all`."""
        return await self._run(query, parameters, _first_row)

    async def execute(self, query: str, /, **parameters: Any) -> int:
        """Run a query for its effect: the number of rows it touched. Arguments and errors as `fetch_all`."""
        return await self._run(query, parameters, _row_count)

    @contextlib.asynccontextmanager
    async def transaction(self, *, isolation: Isolation | None = None) -> AsyncIterator[Transaction]:
        """A transaction for the length of the block: committed at its end, rolled back when it raises.

        Raises:
            DatabaseUnavailable: also with `outcome_unknown`, when the answer to COMMIT was lost.
            QueryFailed: the block went on after a query that had failed, and there is nothing to commit.
        """
        begin = "BEGIN" if isolation is None else f"BEGIN ISOLATION LEVEL {isolation.upper()}"
        async with self._connection() as connection:
            transaction = Transaction(self._runner, connection, f"{begin}; {self._connector.preamble}")
            try:
                yield transaction
            except Exception:
                transaction.end()
                await self._roll_back(connection)
                raise
            except BaseException:
                transaction.end()
                connection.close()  # cancelled: no more waiting; the server rolls back when we hang up
                raise
            transaction.end()
            if transaction.has_begun:
                await self._commit(connection)

    async def run_transaction(
        self, work: Callable[[Transaction], Awaitable[Result]], *, isolation: Isolation | None = None
    ) -> Result:
        """Run `work` in a transaction, and once more as a whole if that can't happen twice.

        That is after a lost connection, a serialization failure or a deadlock; never after a COMMIT whose
        answer was lost.

        Args:
            work: may run twice, so it must do nothing that a rollback does not undo.
            isolation: the level; the server's default is read committed.
        """
        try:
            async with self.transaction(isolation=isolation) as transaction:
                return await work(transaction)
        except DatabaseUnavailable as error:
            if not error.retryable:
                raise
            log.info("database.transaction_retried", error=error.reason)
        async with self.transaction(isolation=isolation) as transaction:
            return await work(transaction)

    async def _run(
        self,
        name: str,
        parameters: Mapping[str, Any],
        read: Callable[[Cursor], Result],
        *,
        blockable: bool = True,
    ) -> Result:
        """Run one query; its rows are read before the connection goes back, where a shutdown may close it."""
        query = self._runner.queries[name]
        if query.private:
            async with self.transaction() as transaction:
                return await transaction.run(name, parameters, read)
        with measure("db"):
            async with self._connection(blockable=blockable) as connection:
                return read(
                    await self._runner.run(
                        connection, query, parameters, final=True, preamble=self._connector.preamble
                    )
                )

    def _connection(self, *, blockable: bool = True) -> _Borrowed:
        if blockable and self.blocked_by is not None:
            raise unavailable(self.blocked_by)
        return _Borrowed(self.pool, self._note_failure)

    def _note_failure(self, error: DatabaseUnavailable) -> None:
        if isinstance(error, SchemaOutdated):
            self.on_schema_error()
        elif isinstance(error, DatabaseFull):
            self._is_full = True
        elif isinstance(error, DatabaseReadOnly):
            self._renew_connections()

    def _renew_connections(self) -> None:
        """Use new connections: a session keeps default_transaction_read_only as it was when the session began."""
        now = monotonic()
        if now - self._renewed_at >= _RENEWAL_SECONDS:
            self._renewed_at = now
            self.pool.renew()

    async def _probe_room(self) -> None:
        """After a write that found the disk full: whether the server still has no room.

        Raises:
            DatabaseFull: it has none.
        """
        with contextlib.suppress(DatabaseReadOnly):  # a role may be forbidden to make temporary tables
            async with self.transaction() as transaction:
                await transaction.execute("probe_room")
        self._is_full = False

    async def _control(self, connection: Connection, statement: str, *, final: bool) -> None:
        name = statement.partition(" ")[0].rstrip(";").lower()
        with measure("db"):
            await self._runner.run_sql(connection, name, statement, {}, final=final)

    async def _commit(self, connection: Connection) -> None:
        if connection.raw.get_transaction_status() != TRANSACTION_STATUS_INTRANS and not connection.closed:
            # The server would answer COMMIT with ROLLBACK, without an error.
            await self._roll_back(connection)
            raise QueryFailed("commit", "25P02", "a query of the transaction had failed")
        await self._control(connection, "COMMIT", final=True)

    async def _roll_back(self, connection: Connection) -> None:
        if connection.closed or connection.raw.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            return  # the server has rolled back, or nothing had begun
        try:
            await self._control(connection, "ROLLBACK", final=False)
        except DatabaseUnavailable:
            connection.close()


class _Borrowed:
    """A connection of the pool for the length of a block; its failures are noted."""

    __slots__ = ("_connection", "_note_failure", "_pool")

    def __init__(self, pool: ConnectionPool, note_failure: Callable[[DatabaseUnavailable], None]) -> None:
        self._pool = pool
        self._note_failure = note_failure

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.acquire()
        return self._connection

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: object
    ) -> None:
        if isinstance(error, DatabaseUnavailable):
            self._note_failure(error)
        self._pool.release(self._connection)


def _rows(cursor: Cursor) -> list[Row]:
    if cursor.description is None:
        return []
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _first_row(cursor: Cursor) -> Row | None:
    rows = _rows(cursor)
    return rows[0] if rows else None


def _row_count(cursor: Cursor) -> int:
    return cursor.rowcount

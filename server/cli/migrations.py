"""Numbered SQL files applied in order, each once, while the service runs and whichever process is killed.

A file is one transaction. It holds an advisory lock, waits for a table for `lock_timeout` at most, and is tried again.
Two other first lines say otherwise; then a second connection holds the lock, in a transaction that does nothing else:

* `-- no-transaction`: each statement on its own; with CONCURRENTLY in it, or for VACUUM, outside of a transaction.
* `-- batched`: each statement in one transaction after another, until it changes no row or answers none. The first
  column of its answer's last row is `%(after)s` of the next batch; in the first it is null. A % is written %%.

All of it works through a pooler in transaction mode. Only the time limits of a statement outside of a transaction
can't be set there: for these, MIGRATION_DATABASE_URL leads past the pooler.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extensions import parse_dsn

from server.cli.database import CONNECT_SECONDS
from server.cli.migration_files import (
    MIGRATIONS_FOLDER,
    Migration,
    MigrationError,
    Statement,
    implied_by,
    read_migrations,
    split_statements,
    unapplied,
)
from server.errors import first_line

log = structlog.get_logger(__name__)

WAIT_SECONDS = 300

_CONCURRENT_INDEX = re.compile(
    r"create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?(?P<name>[a-z_][a-z0-9_]*)\s+on\b",
    re.IGNORECASE,
)
_OUTSIDE_ONLY = re.compile(r"^[^$']*\bconcurrently\b|^vacuum\b", re.IGNORECASE)
# Advisory locks belong to one database, so the key has to differ only from other uses in the same one.
_LOCK_KEY = int.from_bytes(hashlib.sha256(b"mastery schema migrations").digest()[:8], "big", signed=True)
_LONGEST_PAUSE = 16  # in units of the first pause
# Outside of a transaction a statement that waits holds no other one up.
_OUTSIDE = "-c statement_timeout=0 -c lock_timeout=600000 -c mastery.migrating=on"
# Why there is no connection, in the words of PostgreSQL and PgBouncer: the driver gives no code for these. Others, such
# as a wrong password, do not pass.
_PASSES = re.compile(
    "too many|connection slots are reserved|no more connections|query_wait_timeout|server_login_retry|timeout expired"
    "|starting up|shutting down|recovery mode"
)
_REFUSED_OPTIONS = re.compile("startup parameter|options")
# lock_not_available, deadlock_detected, serialization_failure, too_many_connections
_PASSING_STATES = {"55P03", "40P01", "40001", "53300"}
_STATEMENT_TIMED_OUT = "57014"

OnApplied = Callable[[str, float], None]
_Result = TypeVar("_Result")


class _TryAgain(MigrationError):
    """It would be in vain now, and may work later."""

    def __init__(self, message: str, *, pause: float) -> None:
        """Args: pause: seconds before the next try; it doubles with each."""
        super().__init__(message)
        self.pause = pause


def migrate(
    url: str,
    folder: Path = MIGRATIONS_FOLDER,
    *,
    on_applied: OnApplied | None = None,
    wait_seconds: float = WAIT_SECONDS,
    lock_timeout_ms: int = 1000,
) -> list[str]:
    """Apply the files that a database does not have yet. Safe to run in several processes at once.

    A schema that is newer than the files is fine as long as nothing is missing in it: that is a rollback.

    Args:
        url: the database, directly or through a pooler.
        folder: the numbered files.
        on_applied: called with a file's name and its seconds after each one.
        wait_seconds: how long to try again while there is no progress: no connection is free, another process
            migrates, or a table is in use.
        lock_timeout_ms: how long a file waits for a table that is in use, in each try; other statements wait behind
            it for as long.

    Returns:
        The names of the files that were applied by this call, in order; empty when there was nothing to do.

    Raises:
        MigrationError: an applied file was changed or is gone, a file failed, or the database can't be
            reached. The files before the one it names are applied; of that one, nothing is, unless it is batched.
    """
    run = _Run(url, read_migrations(folder), wait_seconds, lock_timeout_ms)
    applied: list[str] = []
    with contextlib.closing(run):
        while (migration := run.next_pending()) is not None:
            started = time.perf_counter()
            if run.patiently(functools.partial(run.apply, migration)):
                seconds = time.perf_counter() - started
                applied.append(migration.name)
                log.info("migrate.applied", migration=migration.name, seconds=round(seconds, 3))
                if on_applied is not None:
                    on_applied(migration.name, seconds)
    log.info("migrate.finished", applied=len(applied))
    return applied


@dataclass(slots=True)
class _Run:
    """One run over a database: its connection, and how far a file of several transactions has come."""

    url: str
    migrations: list[Migration]
    wait_seconds: float
    lock_timeout_ms: int
    _connection: Connection | None = None
    _deadline: float = 0.0
    _done: set[int] = field(default_factory=set)
    _after: dict[int, object] = field(default_factory=dict)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def next_pending(self) -> Migration | None:
        """The first file that the database does not have."""
        self._done, self._after = set(), {}
        pending = self.patiently(lambda: unapplied(self.migrations, self._history()))
        return pending[0] if pending else None

    def patiently(self, work: Callable[[], _Result]) -> _Result:
        """Do something, again and again as long as what prevents it may pass.

        Raises:
            MigrationError: it does not work; or not within wait_seconds since the last progress.
        """
        self._progress()
        tries, reason = 0, ""
        while True:
            started = time.monotonic()
            try:
                return work()
            except _TryAgain as error:
                if time.monotonic() >= self._deadline:
                    raise MigrationError(f"{error}; gave up after {self.wait_seconds:g} s") from error
                if str(error) != reason:
                    tries, reason = 0, str(error)
                    log.warning("migrate.waiting", reason=reason, seconds_at_most=self.wait_seconds)
                pause = error.pause * min(2**tries, _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - spreads
                pause = max(
                    pause, time.monotonic() - started
                )  # what waited for us has half of the time, at least
                tries += 1
            time.sleep(max(0.0, min(pause, self._deadline - time.monotonic())))

    def apply(self, migration: Migration) -> bool:
        """Apply one file under the lock; False if another process has made it needless since it was looked for."""
        connection = self._connected()
        if migration.kind in {"transaction", "baseline"}:
            with _errors_of(connection, migration.name, self._pause), self._locked(connection) as cursor:
                if migration not in unapplied(self.migrations, _select_history(cursor))[:1]:
                    return False
                _execute_whole(cursor, migration)
                _remember(cursor, migration)
            return True
        with (
            contextlib.closing(_connect(self.url)) as holder,
            _errors_of(holder, migration.name, self._pause),
            self._locked(holder) as lock,
        ):
            if migration not in unapplied(self.migrations, _select_history(lock))[:1]:
                return False
            for number, statement in enumerate(split_statements(migration.source)):
                if number in self._done:
                    continue
                where = f"{migration.name}, line {statement.line}"
                with _errors_of(connection, where, self._pause):
                    if migration.kind == "batched":
                        self._run_batches(connection, lock, number, statement)
                    elif _OUTSIDE_ONLY.search(statement.text):
                        lock.execute("SELECT")
                        _run_outside(connection, where, statement)
                    else:
                        lock.execute("SELECT")
                        with self._transaction(connection) as cursor:
                            cursor.execute(statement.text)
                self._done.add(number)
                self._progress()
            _remember(lock, migration)
        return True

    def _run_batches(self, connection: Connection, lock: Cursor, number: int, statement: Statement) -> None:
        """The batches of a statement that are left; each is progress."""
        while True:
            lock.execute(
                "SELECT"
            )  # raises if the connection that holds the lock is gone, and the lock with it
            with self._transaction(connection) as cursor:
                cursor.execute(statement.text, {"after": self._after.get(number)})
                rows = cursor.fetchall() if cursor.description else []
                finished = cursor.rowcount == 0
            if finished:
                return
            self._after[number] = rows[-1][0] if rows else None
            self._progress()

    @property
    def _pause(self) -> float:
        """How long a table is left alone after a lock timed out: other statements get the greater part of the time."""
        return 2 * self.lock_timeout_ms / 1000

    def _progress(self) -> None:
        self._deadline = time.monotonic() + self.wait_seconds

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = _connect(self.url)
        return self._connection

    def _history(self) -> dict[str, str]:
        """The digests of what is applied, by name, with what that comes to; their table is made if need be."""
        connection = self._connected()
        with _errors_of(connection, "schema_migrations", self._pause):
            with connection.cursor() as cursor:
                cursor.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
                if _value(cursor):
                    history = _select_history(cursor)
                    if not implied_by(self.migrations, history):
                        return history
            with self._locked(connection) as cursor:
                cursor.execute(
                    "CREATE TABLE IF NOT EXISTS schema_migrations ("
                    "name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
                )
                implied = implied_by(self.migrations, _select_history(cursor))
                for migration in implied:
                    _remember(cursor, migration)
                if implied:
                    log.info("migrate.taken_as_applied", migrations=[migration.name for migration in implied])
                return _select_history(cursor)

    @contextlib.contextmanager
    def _transaction(self, connection: Connection) -> Iterator[Cursor]:
        """A transaction with our limits, for itself alone: behind a pooler, its connection is others' afterwards."""
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                cursor.execute("SAVEPOINT before_settings")
                try:
                    # When this process is killed, the server stops what it was doing; not every server can.
                    cursor.execute("SET LOCAL client_connection_check_interval = 500")
                except psycopg2.DatabaseError:
                    cursor.execute("ROLLBACK TO before_settings")
                cursor.execute("SET LOCAL statement_timeout = 0")
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                if connection.server_version >= 170000:
                    cursor.execute("SET LOCAL transaction_timeout = 0")
                cursor.execute("SET LOCAL lock_timeout = %s", (self.lock_timeout_ms,))
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if not connection.closed:
                    with contextlib.suppress(psycopg2.Error):
                        cursor.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _locked(self, connection: Connection) -> Iterator[Cursor]:
        """A transaction that holds the advisory lock, as long as it lasts.

        The lock is asked for, never waited for: a waiting statement holds a snapshot, and CREATE INDEX CONCURRENTLY in
        the process that has the lock would wait for it, for ever. A transaction that is idle holds none.
        """
        with self._transaction(connection) as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK_KEY,))
            if not _value(cursor):
                raise _TryAgain("another process is migrating this database", pause=0.1)
            yield cursor


def _connect(url: str) -> Connection:
    """A connection in autocommit mode; without time limits, if it is a direct one.

    A pooler refuses the options, or ignores them, and then a session's settings would be others' afterwards.
    """
    try:
        given = parse_dsn(url).get("options", "")
        try:
            connection = _dial(url, f"{given} {_OUTSIDE}".strip())
        except psycopg2.OperationalError as error:
            if not _REFUSED_OPTIONS.search(str(error)):
                raise
            connection = _dial(url, given or None)
    except psycopg2.Error as error:
        message = f"no connection to the database: {first_line(error)}"
        if _PASSES.search(str(error)):
            raise _TryAgain(message, pause=0.25) from None
        raise MigrationError(message) from None
    connection.autocommit = True
    return connection


def _dial(url: str, options: str | None) -> Connection:
    return psycopg2.connect(
        url, connect_timeout=CONNECT_SECONDS, application_name="mastery migrations", options=options
    )


@contextlib.contextmanager
def _errors_of(connection: Connection, where: str, pause: float) -> Iterator[None]:
    """Errors of the driver as ours, with the place they come from."""
    try:
        yield
    except psycopg2.Error as error:
        message = f"{where}: {first_line(error)}"
        is_lost = connection.closed or (
            error.pgcode is None and isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
        )
        if is_lost or error.pgcode in _PASSING_STATES:
            raise _TryAgain(message, pause=pause) from error
        if error.pgcode == _STATEMENT_TIMED_OUT:
            message += "; MIGRATION_DATABASE_URL leads past a pooler that allows no other limit"
        raise MigrationError(message) from error


def _execute_whole(cursor: Cursor, migration: Migration) -> None:
    try:
        cursor.execute(migration.source)
    except psycopg2.Error as error:
        if error.pgcode in _PASSING_STATES or error.diag.statement_position is None:
            raise
        line = migration.source.count("\n", 0, int(error.diag.statement_position)) + 1
        raise MigrationError(f"{migration.name}, line {line}: {first_line(error)}") from error


def _run_outside(connection: Connection, where: str, statement: Statement) -> None:
    """Run one statement outside of a transaction; an index that an interrupted run left is dropped and built anew."""
    with connection.cursor() as cursor:
        index = _CONCURRENT_INDEX.match(statement.text)
        if index is not None:
            name = index["name"].lower()
            cursor.execute(
                "SELECT indisvalid, EXISTS (SELECT FROM pg_stat_progress_create_index AS p"
                " WHERE p.index_relid = i.indexrelid)"
                " FROM pg_index AS i WHERE indexrelid = to_regclass(%s)",
                (name,),
            )
            is_valid, is_being_built = cursor.fetchone() or (None, False)
            if is_valid:
                return
            if is_being_built:  # by the server, for a process that was killed
                raise _TryAgain(f"{where}: {name} is being built already", pause=0.25)
            if is_valid is not None:
                cursor.execute(f'DROP INDEX CONCURRENTLY "{name}"')
        cursor.execute(statement.text)


def _select_history(cursor: Cursor) -> dict[str, str]:
    cursor.execute("SELECT name, sha256 FROM schema_migrations ORDER BY name")
    return dict(cursor.fetchall())


def _remember(cursor: Cursor, migration: Migration) -> None:
    cursor.execute(
        "INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)", (migration.name, migration.sha256)
    )


def _value(cursor: Cursor) -> bool:
    row = cursor.fetchone()
    return row is not None and bool(row[0])

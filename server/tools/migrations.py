"""Numbered SQL files applied in order, each once: under a lock, with its digest kept, never by halves."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from server.tools.failures import CommandError
from server.tools.sql_statements import Statement, split_statements

MIGRATIONS_FOLDER = Path(__file__).resolve().parents[2] / "sql" / "migrations"
NO_TRANSACTION = "-- no-transaction"

_NAME = re.compile(r"(?P<number>\d{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql")
_TRANSACTION_CONTROL = re.compile(r"(begin|start\s+transaction|commit|end|rollback|abort)\b", re.IGNORECASE)
_CONCURRENT_INDEX = re.compile(
    r"create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?(?P<name>[a-z_][a-z0-9_]*)\s+on\b",
    re.IGNORECASE,
)
# Advisory locks belong to one database, so the key has to differ only from other uses in the same one.
_LOCK_KEY = int.from_bytes(hashlib.sha256(b"mastery schema migrations").digest()[:8], "big", signed=True)
_LOCK_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 10
_CONCURRENT_LOCK_TIMEOUT_MS = 600_000

OnApplied = Callable[[str, float], None]


class MigrationError(CommandError):
    """The database was not brought up to date; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name, its text and the SHA-256 of that text, whatever the checkout did to line ends."""

    name: str
    source: str
    sha256: str

    @property
    def in_transaction(self) -> bool:
        """Whether the whole file is one transaction; `-- no-transaction` as its first line says no."""
        return self.source.partition("\n")[0].strip() != NO_TRANSACTION


def read_migrations(folder: Path = MIGRATIONS_FOLDER) -> list[Migration]:
    """The migrations of a folder in order: `0001_words.sql`, `0002_words.sql`, … without a gap.

    Raises:
        MigrationError: a name does not fit, a number is missing or used twice, or there is no such folder.
    """
    if not folder.is_dir():
        raise MigrationError(f"there is no folder {folder}")
    paths = sorted(folder.glob("*.sql"))
    problems = [
        f"{path.name}: expected a name such as 0007_words_with_underscores.sql"
        for path in paths
        if not _NAME.fullmatch(path.name)
    ]
    numbered = [path for path in paths if _NAME.fullmatch(path.name)]
    for expected, path in enumerate(numbered, start=1):
        if int(path.name[:4]) != expected:
            problems.append(
                f"{path.name}: expected number {expected:04d}; numbers have no gaps, no duplicates"
            )
            break
    if problems:
        raise MigrationError("; ".join(problems))
    return [_read(path) for path in numbered]


def migrate(
    url: str,
    folder: Path = MIGRATIONS_FOLDER,
    *,
    on_applied: OnApplied | None = None,
    lock_wait_seconds: float = 60.0,
    lock_timeout_ms: int = 10_000,
) -> list[str]:
    """Apply the files that a database does not have yet. Safe to run in several processes at once.

    Args:
        url: the database; a direct connection, not a transaction-pooling one.
        folder: the numbered files.
        on_applied: called with a file's name and its seconds after each one.
        lock_wait_seconds: how long another process that migrates is waited for.
        lock_timeout_ms: how long a statement waits for a table that is in use, before the file is given up.

    Returns:
        The names of the files that were applied, in order; empty when there was nothing to do.

    Raises:
        MigrationError: an applied file was changed or is gone, a file failed, or the database can't be
            reached. The files before the one it names are applied; of that one, nothing is.
    """
    migrations = read_migrations(folder)
    applied: list[str] = []
    with _connected(url) as connection, _locked(connection, lock_wait_seconds):
        for migration in _unapplied(migrations, _read_history(connection)):
            started = time.perf_counter()
            _apply(connection, migration, lock_timeout_ms)
            applied.append(migration.name)
            if on_applied is not None:
                on_applied(migration.name, time.perf_counter() - started)
    return applied


def list_pending(url: str, folder: Path = MIGRATIONS_FOLDER) -> list[str]:
    """The names of the files that `migrate` would apply; changes nothing.

    Raises:
        MigrationError: as `migrate`.
    """
    migrations = read_migrations(folder)
    with _connected(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
        history = _select_history(cursor) if _value(cursor) else {}
    return [migration.name for migration in _unapplied(migrations, history)]


def _read(path: Path) -> Migration:
    content = path.read_bytes().replace(b"\r\n", b"\n")
    migration = Migration(path.name, content.decode("utf-8"), hashlib.sha256(content).hexdigest())
    for statement in split_statements(migration.source):
        if _TRANSACTION_CONTROL.match(statement.text):
            raise MigrationError(
                f"{path.name}, line {statement.line}: a migration must not begin or end transactions; "
                "the whole file is one already"
            )
    return migration


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Connection]:
    try:
        connection = psycopg2.connect(
            url, connect_timeout=_CONNECT_SECONDS, application_name="mastery migrations"
        )
    except psycopg2.Error as error:
        raise MigrationError(f"no connection to the database: {_first_line(error)}") from None
    with contextlib.closing(connection):
        connection.autocommit = True
        with connection.cursor() as cursor, contextlib.suppress(psycopg2.Error):
            # When this process is killed, the server stops what it was doing; not every server can.
            cursor.execute("SET client_connection_check_interval = 500")
        yield connection


@contextlib.contextmanager
def _locked(connection: Connection, wait_seconds: float) -> Iterator[None]:
    """Hold the advisory lock: the session's, so that a killed process frees it.

    It is asked for again and again, never waited for inside a statement: a waiting statement holds a
    snapshot, and CREATE INDEX CONCURRENTLY in the process that has the lock would wait for it, for ever.
    """
    deadline = time.monotonic() + wait_seconds
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,))
            if _value(cursor):
                break
            if time.monotonic() >= deadline:
                raise MigrationError(
                    f"another process has been migrating this database for {wait_seconds:g} s; try again"
                )
            time.sleep(_LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            if not connection.closed:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (_LOCK_KEY,))


def _read_history(connection: Connection) -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            "name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        return _select_history(cursor)


def _select_history(cursor: Cursor) -> dict[str, str]:
    cursor.execute("SELECT name, sha256 FROM schema_migrations ORDER BY name")
    return dict(cursor.fetchall())


def _unapplied(migrations: list[Migration], history: dict[str, str]) -> list[Migration]:
    by_name = {migration.name: migration for migration in migrations}
    last = max(history, default="")
    problems = [f"{name} has been applied but its file is gone" for name in history if name not in by_name]
    pending = []
    for migration in migrations:
        if migration.name not in history:
            pending.append(migration)
            if migration.name < last:
                problems.append(f"{migration.name} is new but {last} has been applied before it: renumber it")
        elif history[migration.name] != migration.sha256:
            problems.append(
                f"{migration.name} was changed after it had been applied: restore it, add a new file"
            )
    if problems:
        raise MigrationError("; ".join(problems))
    return pending


def _apply(connection: Connection, migration: Migration, lock_timeout_ms: int) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")
            if migration.in_transaction:
                cursor.execute("SET lock_timeout = %s", (lock_timeout_ms,))
                _apply_whole(cursor, migration)
            else:
                cursor.execute("SET lock_timeout = %s", (_CONCURRENT_LOCK_TIMEOUT_MS,))
                for statement in split_statements(migration.source):
                    _apply_statement(cursor, migration, statement)
                _remember(cursor, migration)
    except psycopg2.Error as error:
        raise MigrationError(f"{migration.name}: {_first_line(error)}") from error


def _apply_whole(cursor: Cursor, migration: Migration) -> None:
    cursor.execute("BEGIN")
    try:
        cursor.execute(migration.source)
        _remember(cursor, migration)
        cursor.execute("COMMIT")
    except psycopg2.Error as error:
        if not cursor.connection.closed:
            cursor.execute("ROLLBACK")
        position = error.diag.statement_position
        where = f", line {migration.source.count(chr(10), 0, int(position)) + 1}" if position else ""
        raise MigrationError(f"{migration.name}{where}: {_first_line(error)}") from error


def _apply_statement(cursor: Cursor, migration: Migration, statement: Statement) -> None:
    """Run one statement outside of a transaction; an index that an interrupted run left is dealt with."""
    index = _CONCURRENT_INDEX.match(statement.text)
    if index is not None:
        name = index["name"].lower()
        cursor.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)",
            (name,),
        )
        found = cursor.fetchone()
        if found is not None and found[0]:
            return
        if found is not None:
            cursor.execute(f'DROP INDEX CONCURRENTLY "{name}"')
    try:
        cursor.execute(statement.text)
    except psycopg2.Error as error:
        raise MigrationError(f"{migration.name}, line {statement.line}: {_first_line(error)}") from error


def _remember(cursor: Cursor, migration: Migration) -> None:
    cursor.execute(
        "INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)", (migration.name, migration.sha256)
    )


def _value(cursor: Cursor) -> bool:
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def _first_line(error: psycopg2.Error) -> str:
    return str(error).strip().partition("\n")[0]

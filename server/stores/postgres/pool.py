"""A bounded pool of connections to PostgreSQL, and how they are opened.

The pool grows when it must, learns its ceiling, and shrinks when idle. It is not aiopg's, which loses wake-ups (a
connection that comes back closed wakes no waiter), opens connections while it holds the lock that every release needs,
starts a task for each release, takes a failed growth for a missing database, and never closes unused connections.

A connection gets the settings that every query relies on as start-up options. If the server refuses these, they are
the session's first statement. Behind a pooler, sessions are shared: there every transaction sets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import socket
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg2
import structlog
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, make_dsn, new_type, parse_dsn, register_type

from server.errors import first_line
from server.stores.postgres.connection import Connection, wait_at_most
from server.stores.postgres.errors import DatabaseUnavailable, translate_connect_error

log = structlog.get_logger(__name__)

# How long the pool makes do with what it has after the server refused one more connection.
GROWTH_RETRY_SECONDS = 5.0
_KEPT_WHEN_IDLE = 1
_BYTEA_OID = 17
# A pooler's "unsupported startup parameter", and an older server's "unrecognized configuration parameter".
_OPTIONS_REFUSED = re.compile(r"parameter|invalid command-line argument", re.IGNORECASE)
# `-c name=value` and `--name=value` in the URL's own options.
_OPTION = re.compile(r"(?:-c\s*|--)(?P<name>[A-Za-z_][\w.]*)=(?P<value>(?:\\.|[^\s\\])*)")
_CHECK_INTERVAL = "client_connection_check_interval"
# A pooler answers with a process id of its own making when the connection begins.
_LOOK = f"SELECT pg_backend_pid(), current_setting('{_CHECK_INTERVAL}', true) IS NOT NULL"


class ConnectionPool:
    """At most `size` connections at a time; the most recently used one is given out first.

    A caller waits for whichever comes first: a connection that is given back, or a new one. New ones are opened by
    tasks of the pool's own, so a server that refuses them, or does not answer, fails no caller while others exist.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        size: int,
        acquire_timeout_ms: float,
        idle_seconds: float = 60.0,
        growth_retry_seconds: float = GROWTH_RETRY_SECONDS,
        logs_outages: bool = True,
    ) -> None:
        """Args: connect: opens one; size: at most so many; acquire_timeout_ms: to wait, and to connect.

        idle_seconds: unused connections are closed after this time, except for the last one.
        growth_retry_seconds: the pause after a refused growth.
        logs_outages: whether the loss of the server and its return are logged here.
        """
        self.size = size
        self._connect = connect
        self._acquire_timeout_seconds = acquire_timeout_ms / 1000
        self._idle_seconds = idle_seconds
        self._growth_retry_seconds = growth_retry_seconds
        self._logs_outages = logs_outages
        # Invariant: while a caller waits, no connection is free.
        self._free: deque[Connection] = deque()
        self._used: set[Connection] = set()
        self._stale: set[Connection] = set()  # those of `_used` that are closed when they come back
        self._waiters: OrderedDict[asyncio.Future[Connection], None] = OrderedDict()
        self._opening: set[asyncio.Task[None]] = set()
        self._retry_at: float | None = None  # when growth may be tried again; None: there is no known ceiling
        self._ceiling_logged = False
        self._fewest_free = 0  # since the idle timer was set: this many were not needed
        self._idle_timer: asyncio.TimerHandle | None = None
        self._reachable = True
        self._closing = False
        self._all_back = asyncio.Event()

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._used) + sum(not connection.closed for connection in self._free)

    @property
    def in_use(self) -> int:
        """How many of them are in use."""
        return len(self._used)

    @property
    def waiters(self) -> int:
        """How many callers wait for one."""
        return len(self._waiters)

    async def acquire(self) -> Connection:
        """A connection, open as far as is known; give it back with `release`.

        Raises:
            DatabaseUnavailable: `pool_exhausted`, `closed`, or why not even one connection could be opened.
        """
        if self._closing:
            raise DatabaseUnavailable("closed")
        while self._free:
            connection = self._free.pop()
            if not connection.closed and _has_word(connection):
                connection.close()  # an idle server has nothing to say but that it ends
            if not connection.closed:
                self._fewest_free = min(self._fewest_free, len(self._free))
                self._used.add(connection)
                return connection
        return await self._wait()

    def release(self, connection: Connection) -> None:
        """Take a connection back. One in a transaction, with a running query or closed is not used again."""
        self._used.discard(connection)
        if self._stale and connection in self._stale:
            self._stale.discard(connection)
            connection.close()
        # The status is ACTIVE while a query runs and INTRANS or INERROR in a transaction.
        if connection.closed or connection.raw.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            connection.close()
            self._grow()
        elif self._closing:
            connection.close()
        else:
            self._offer(connection)
        if self._closing and not self._used:
            self._all_back.set()

    def renew(self) -> None:
        """Use none of the present connections again: free ones are closed now, the others when they are released."""
        self._stale |= self._used
        for connection in self._free:
            connection.close()
        self._free.clear()

    async def close(self, grace_seconds: float) -> None:
        """Refuse new callers, wait `grace_seconds` for connections in use, and close them all."""
        self._closing = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._fail_waiters(DatabaseUnavailable("closed"))
        self.renew()
        if self._used:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._all_back.wait()
        if self._used:
            log.warning("database.connections_terminated", connections=len(self._used))
        for connection in list(self._used):
            connection.close()

    async def _wait(self) -> Connection:
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        self._fewest_free = 0
        self._grow()
        try:
            return await wait_at_most(waiter, self._acquire_timeout_seconds)
        except BaseException as error:
            self._waiters.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())  # it came together with the end of the waiting
            if isinstance(error, TimeoutError):
                raise DatabaseUnavailable("pool_exhausted" if self._used else "timeout") from None
            raise

    def _offer(self, connection: Connection) -> None:
        """Give an idle connection to the first of those that wait, or keep it."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                self._used.add(connection)
                waiter.set_result(connection)
                return
        self._free.append(connection)

    def _grow(self) -> None:
        """Open a connection for each of those that wait, as far as there may be more."""
        while len(self._opening) < len(self._waiters) and self._may_grow():
            task = asyncio.get_running_loop().create_task(self._open_one(), name="database-connect")
            self._opening.add(task)

    def _may_grow(self) -> bool:
        existing = len(self._used) + len(self._opening)
        if existing == 0 or self._retry_at is None:
            return existing < self.size and not self._closing
        # One attempt at a time, after the pause: the server has refused more than there are.
        is_time = asyncio.get_running_loop().time() >= self._retry_at
        return existing < self.size and is_time and not self._opening and not self._closing

    async def _open_one(self) -> None:
        error: DatabaseUnavailable | None = None
        try:
            async with asyncio.timeout(self._acquire_timeout_seconds):
                connection = await self._connect()
        except TimeoutError:
            error = DatabaseUnavailable("timeout", driver_message="no answer in time")
        except DatabaseUnavailable as failure:
            error = failure
        except Exception as failure:
            log.exception("database.connect_failed")
            error = DatabaseUnavailable("closed", driver_message=type(failure).__name__)
        finally:
            self._opening.remove(asyncio.current_task())  # type: ignore[arg-type]  # a task is running: this one
        if error is not None:
            self._growth_failed(error)
            return
        self._note_reachable(None)
        self._retry_at = None
        self._offer(connection)
        if self.open == self.size:
            self._ceiling_logged = False
        self._watch_idle()
        self._grow()

    def _growth_failed(self, error: DatabaseUnavailable) -> None:
        if not (self._used or self._free or self._opening):
            self._note_reachable(error)
            self._fail_waiters(error)
            return
        if not self._ceiling_logged:
            self._ceiling_logged = True
            log.warning(
                "database.growth_refused",
                open=self.open,
                pool_size=self.size,
                error=error.reason,
                detail=error.driver_message,
            )
        self._retry_at = asyncio.get_running_loop().time() + self._growth_retry_seconds

    def _fail_waiters(self, error: DatabaseUnavailable) -> None:
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():  # each its own: an exception that is raised twice grows a traceback of both
                waiter.set_exception(DatabaseUnavailable(error.reason))

    def _watch_idle(self) -> None:
        if self._idle_timer is None and self.open > _KEPT_WHEN_IDLE:
            self._fewest_free = len(self._free)
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._close_idle)

    def _close_idle(self) -> None:
        """Close as many as were free during all of the time since the timer was set, the longest unused first."""
        self._idle_timer = None
        surplus = min(self._fewest_free, self.open - _KEPT_WHEN_IDLE)
        for _ in range(min(surplus, len(self._free))):
            self._free.popleft().close()
        self._watch_idle()

    def _note_reachable(self, error: DatabaseUnavailable | None) -> None:
        """Log the loss of the server and its return, each once, for all callers."""
        if not self._logs_outages:
            return
        if error is not None and self._reachable:
            log.warning("database.unavailable", error=error.reason, detail=error.driver_message)
        elif error is None and not self._reachable:
            log.info("database.recovered")
        self._reachable = error is None


class Connector:
    """Opens connections with the settings that every query relies on.

    Attributes:
        preamble: what each transaction has to begin with, so that the settings hold in it: SQL, or nothing where the
            connections have them by themselves. Known from the first connection on.
    """

    def __init__(self, url: str, *, connect_timeout_ms: float, query_timeout_ms: float) -> None:
        """Args: url: `postgresql://` or `postgres://`; connect_timeout_ms: for all of its hosts together.

        query_timeout_ms: the client's limit; the server's own is set a second above it.

        Raises:
            ValueError: the URL is none that PostgreSQL understands.
        """
        try:
            given = parse_dsn(url)
        except psycopg2.ProgrammingError:
            expected = "postgresql://user:password@host:port/name"
            raise ValueError(f"not a PostgreSQL URL: expected {expected}") from None
        # The server's limit is the second line: it ends what a vanished client left behind.
        server_timeout_ms = int(query_timeout_ms) + 1000
        own_options = given.pop("options", "")
        settings = {
            "statement_timeout": str(server_timeout_ms),
            _CHECK_INTERVAL: "500",
            "TimeZone": "UTC",
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._plain: dict[str, str] = {
            "application_name": "mastery",
            "client_encoding": "UTF8",
            "tcp_user_timeout": str(server_timeout_ms),
        } | given
        self._options = f"{options} {own_options}".strip()
        self._settings = settings | {
            match["name"]: re.sub(r"\\(.)", r"\1", match["value"]) for match in _OPTION.finditer(own_options)
        }
        self._options_refused = False
        self.preamble = ""
        self._connect_timeout_seconds = connect_timeout_ms / 1000

    async def connect(self) -> Connection:
        """A new connection; each address of each host is tried in turn.

        libpq would do that itself, but it goes on to the next address with another socket, which aiopg
        never notices, and it looks names up while the event loop stands still.

        Raises:
            DatabaseUnavailable: none can be opened, for its `reason`.
        """
        try:
            addresses = await self._resolve()
            share_seconds = self._connect_timeout_seconds / len(addresses)
            for address in addresses[:-1]:
                with contextlib.suppress(OSError, psycopg2.Error):
                    return await self._connect_to(address, share_seconds)
            return await self._connect_to(addresses[-1], share_seconds)
        except (OSError, psycopg2.Error) as error:
            raise translate_connect_error(error) from None

    async def _resolve(self) -> list[dict[str, str]]:
        """Host, port and address of each place to try; nothing to add where libpq needs no look-up."""
        hosts = self._plain.get("host", "")
        if not hosts or hosts.startswith("/") or "hostaddr" in self._plain:
            return [{}]
        ports = self._plain.get("port", "5432").split(",")
        loop = asyncio.get_running_loop()
        places: list[dict[str, str]] = []
        for number, host in enumerate(hosts.split(",")):
            port = ports[number % len(ports)]
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            places += [{"host": host, "port": port, "hostaddr": str(entry[4][0])} for entry in found]
        return places

    async def _connect_to(self, place: dict[str, str], timeout_seconds: float) -> Connection:
        parameters = self._plain | place
        async with asyncio.timeout(timeout_seconds):
            if not self._options_refused:
                try:
                    connection = await _open(parameters | {"options": self._options}, timeout_seconds)
                    return await self._prepare(connection, has_settings=True)
                except psycopg2.OperationalError as error:
                    if not _OPTIONS_REFUSED.search(str(error)):
                        raise
                    log.info("database.options_refused", error=first_line(error))
                    self._options_refused = True
            connection = await _open(parameters, timeout_seconds)
            return await self._prepare(connection, has_settings=False)

    async def _prepare(self, connection: Connection, *, has_settings: bool) -> Connection:
        """Find out whether a pooler is at the other end, and apply the settings."""
        try:
            cursor = await connection.run(_LOOK, None, timeout_seconds=self._connect_timeout_seconds)
            process_id, has_check_interval = cursor.fetchone() or (None, None)
            settings = {
                name: value
                for name, value in self._settings.items()
                if name != _CHECK_INTERVAL or has_check_interval
            }
            if process_id != connection.raw.get_backend_pid():
                if not self.preamble:
                    log.info("database.pooler_found")
                self.preamble = "".join(
                    f"SET LOCAL {name} = {_literal(value)}; " for name, value in settings.items()
                )
            elif not has_settings:
                await connection.run(
                    "".join(f"SET {name} = {_literal(value)}; " for name, value in settings.items()),
                    {},
                    timeout_seconds=self._connect_timeout_seconds,
                )
        except BaseException:
            connection.close()
            raise
        return connection


async def _open(parameters: dict[str, str], timeout_seconds: float) -> Connection:
    dsn = make_dsn(**parameters)
    _forget_closed_sockets()
    connection = Connection(dsn, timeout_seconds, enable_hstore=False)
    await connection
    register_type(new_type((_BYTEA_OID,), "BYTES", _read_bytes), connection.raw)
    return connection


def _has_word(connection: Connection) -> bool:
    """Whether something has arrived on an idle connection.

    Seen before a statement is sent, its loss is no failure. Afterwards nobody could say whether the statement was run.
    """
    poll = select.poll()
    poll.register(connection.raw.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _forget_closed_sockets() -> None:
    """Make uvloop forget the sockets that libpq has closed by itself, as it does when the server is down.

    uvloop keeps the dead handle of such a socket under its number, and raises RuntimeError when the next connection
    gets the same number. To remove a reader or a writer that is not there does nothing.
    """
    loop = asyncio.get_running_loop()
    highest = max(int(path.name) for path in Path("/dev/fd").iterdir())
    for descriptor in range(3, highest + 2):
        try:
            os.fstat(descriptor)
        except OSError:
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)


def _read_bytes(value: str | bytes | None, cursor: Any) -> bytes | None:
    view = psycopg2.BINARY(value, cursor)
    return None if view is None else bytes(view)


def _literal(text: str) -> str:
    """A string constant. Percent signs are doubled, because to the driver they begin a parameter."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"

"""Connections to PostgreSQL: how one is opened, and a bounded pool of them.

The pool is ours. aiopg's own loses wake-ups (a connection that comes back closed wakes no waiter), opens
connections while it holds the lock that every release needs, and starts a task for each release.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiopg
import psycopg2
import structlog
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    make_dsn,
    new_type,
    parse_dsn,
    register_type,
)

from server.stores.database_errors import DatabaseUnavailable, translate_connect_error

log = structlog.get_logger(__name__)

_BYTEA_OID = 17
# A pooler's "unsupported startup parameter", and an older server's "unrecognized configuration parameter".
_OPTIONS_REFUSED = re.compile(r"parameter|invalid command-line argument", re.IGNORECASE)


class Connector:
    """Opens connections with the settings that every query relies on."""

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
        settings = {
            "statement_timeout": server_timeout_ms,
            "client_connection_check_interval": 500,
            "TimeZone": "UTC",
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._plain: dict[str, str] = {
            "application_name": "mastery",
            "client_encoding": "UTF8",
            "tcp_user_timeout": str(server_timeout_ms),
        } | given
        self._options = f"{options} {given.get('options', '')}".strip()
        self._options_refused = False
        self._connect_timeout_seconds = connect_timeout_ms / 1000

    async def connect(self) -> aiopg.Connection:
        """A new connection; each address of each host is tried in turn.

        libpq would do that itself, but it goes on to the next address with another socket, which aiopg
        never notices, and it looks names up while the event loop stands still.

        Raises:
            DatabaseUnavailable: there is none to be had; the reason says why.
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

    async def _connect_to(self, place: dict[str, str], timeout_seconds: float) -> aiopg.Connection:
        parameters = self._plain | place
        if self._options_refused:
            return await _open(parameters, timeout_seconds)
        try:
            return await _open(parameters | {"options": self._options}, timeout_seconds)
        except psycopg2.OperationalError as error:
            if not _OPTIONS_REFUSED.search(str(error)):
                raise
            parameters.pop("options", None)
            connection = await _open(parameters, timeout_seconds)
            self._options_refused = True
            log.warning("database.options_refused", error=_first_line(error))
            return connection


async def _open(parameters: dict[str, str], timeout_seconds: float) -> aiopg.Connection:
    dsn = make_dsn(**parameters)
    _forget_closed_sockets()
    connection: aiopg.Connection = await aiopg.connect(dsn, timeout=timeout_seconds, enable_hstore=False)
    register_type(new_type((_BYTEA_OID,), "BYTES", _read_bytes), connection.raw)
    return connection


def _forget_closed_sockets() -> None:
    """Make uvloop forget the sockets that libpq has closed by itself, as it does when the server is gone.

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


class ConnectionPool:
    """At most `size` connections at a time; the most recently used one is given out first."""

    def __init__(
        self, connect: Callable[[], Awaitable[aiopg.Connection]], *, size: int, acquire_timeout_ms: float
    ) -> None:
        """Args: connect: opens one; size: at most so many; acquire_timeout_ms: to wait and connect."""
        self.size = size
        self.in_use = 0
        self.waiters = 0
        self._connect = connect
        self._acquire_timeout_seconds = acquire_timeout_ms / 1000
        self._slots = asyncio.Semaphore(size)
        self._free: deque[aiopg.Connection] = deque()
        self._used: set[aiopg.Connection] = set()
        self._closing = False
        self._reachable = True
        self._all_back = asyncio.Event()
        self._all_back.set()

    async def acquire(self) -> aiopg.Connection:
        """A connection that is open as far as anyone knows; give it back with `release`.

        Raises:
            DatabaseUnavailable: `pool_exhausted`, `closed`, or why no connection could be opened.
        """
        if self._closing:
            raise DatabaseUnavailable("closed")
        deadline = asyncio.get_running_loop().time() + self._acquire_timeout_seconds
        await self._take_slot(deadline)
        self.in_use += 1
        self._all_back.clear()
        try:
            connection = self._pop_free() or await self._open(deadline)
        except BaseException:
            self._give_slot()
            raise
        self._used.add(connection)
        return connection

    def release(self, connection: aiopg.Connection) -> None:
        """Take a connection back. One in a transaction, with a running query or closed is not used again."""
        self._used.discard(connection)
        if not connection.closed:
            # The status is ACTIVE while a query runs and INTRANS or INERROR in a transaction.
            idle = connection.raw.get_transaction_status() == TRANSACTION_STATUS_IDLE
            if idle and not self._closing:
                self._free.append(connection)
            else:
                connection.close()
        self._give_slot()

    async def close(self, grace_seconds: float) -> None:
        """Let nobody in any more, give those inside some time, then close what they still hold."""
        self._closing = True
        for connection in self._free:
            connection.close()
        self._free.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._all_back.wait()
        if self._used:
            log.warning("database.connections_terminated", connections=len(self._used))
        for connection in list(self._used):
            connection.close()

    async def _take_slot(self, deadline: float) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        self.waiters += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("pool_exhausted") from None
        finally:
            self.waiters -= 1
        if self._closing:
            self._slots.release()
            raise DatabaseUnavailable("closed")

    def _give_slot(self) -> None:
        self.in_use -= 1
        if self.in_use == 0:
            self._all_back.set()
        self._slots.release()

    def _pop_free(self) -> aiopg.Connection | None:
        while self._free:
            connection = self._free.pop()
            if not connection.closed:
                return connection
        return None

    async def _open(self, deadline: float) -> aiopg.Connection:
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._connect()
        except TimeoutError:
            self._note(DatabaseUnavailable("timeout", driver_message="no answer in time"))
            raise DatabaseUnavailable("timeout") from None
        except DatabaseUnavailable as error:
            self._note(error)
            raise
        self._note(None)
        return connection

    def _note(self, error: DatabaseUnavailable | None) -> None:
        """Log the loss of the server and its return, each once, however many ask meanwhile."""
        if error is not None and self._reachable:
            log.warning("database.unavailable", error=error.reason, detail=error.driver_message)
        elif error is None and not self._reachable:
            log.info("database.recovered")
        self._reachable = error is None


def _read_bytes(value: str | bytes | None, cursor: Any) -> bytes | None:
    view = psycopg2.BINARY(value, cursor)
    return None if view is None else bytes(view)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

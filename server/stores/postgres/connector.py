"""How a connection to PostgreSQL is opened, and how the settings that every query relies on get to it.

They are start-up options, where these are taken. A server that refuses them is sent them as the session's first
statement. Behind a pooler a session is nobody's own: there every transaction brings them along.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from pathlib import Path
from typing import Any

import aiopg
import psycopg2
import structlog
from psycopg2.extensions import make_dsn, new_type, parse_dsn, register_type

from server.stores.postgres.errors import translate_connect_error

log = structlog.get_logger(__name__)

_BYTEA_OID = 17
# A pooler's "unsupported startup parameter", and an older server's "unrecognized configuration parameter".
_OPTIONS_REFUSED = re.compile(r"parameter|invalid command-line argument", re.IGNORECASE)
# `-c name=value` and `--name=value` in the URL's own options.
_OPTION = re.compile(r"(?:-c\s*|--)(?P<name>[A-Za-z_][\w.]*)=(?P<value>(?:\\.|[^\s\\])*)")
_CHECK_INTERVAL = "client_connection_check_interval"
# A pooler answers with a process id of its own making when the connection begins.
_LOOK = f"SELECT pg_backend_pid(), current_setting('{_CHECK_INTERVAL}', true) IS NOT NULL"


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
        async with asyncio.timeout(timeout_seconds):
            if not self._options_refused:
                try:
                    connection = await _open(parameters | {"options": self._options}, timeout_seconds)
                    return await self._prepare(connection, has_settings=True)
                except psycopg2.OperationalError as error:
                    if not _OPTIONS_REFUSED.search(str(error)):
                        raise
                    log.info("database.options_refused", error=_first_line(error))
                    self._options_refused = True
            connection = await _open(parameters, timeout_seconds)
            return await self._prepare(connection, has_settings=False)

    async def _prepare(self, connection: aiopg.Connection, *, has_settings: bool) -> aiopg.Connection:
        """Find out what is at the other end, and make sure of the settings there."""
        try:
            cursor = await connection.cursor()
            await cursor.execute(_LOOK)
            process_id, has_check_interval = cursor.raw.fetchone()
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
                await cursor.execute(
                    "".join(f"SET {name} = {_literal(value)}; " for name, value in settings.items())
                )
        except BaseException:
            connection.close()
            raise
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


def _read_bytes(value: str | bytes | None, cursor: Any) -> bytes | None:
    view = psycopg2.BINARY(value, cursor)
    return None if view is None else bytes(view)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _literal(text: str) -> str:
    """A string constant; the driver takes a percent sign for the beginning of a parameter."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"

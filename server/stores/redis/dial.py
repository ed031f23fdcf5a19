"""How a connection is made: redis-py finds the server and shakes hands, then we take the socket over."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import redis.asyncio as aioredis
from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from server.stores.redis.address import Node, RedisAddress
from server.stores.redis.errors import RedisUnavailable
from server.stores.redis.protocol import ReplyStream

# From the most to the least telling: an error's chain holds several.
_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (exceptions.AuthenticationError, "auth"),
    (exceptions.NoPermissionError, "auth"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.ReadOnlyError, "readonly"),
    (exceptions.ClusterDownError, "clusterdown"),
    (exceptions.MasterDownError, "masterdown"),
    (aioredis.sentinel.MasterNotFoundError, "no-master"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "dns"),
    (ConnectionRefusedError, "refused"),
    (FileNotFoundError, "refused"),
    (TimeoutError, "timeout"),
    (exceptions.TimeoutError, "timeout"),
    (exceptions.MaxConnectionsError, "refused"),
    (exceptions.InvalidResponse, "protocol"),
    (exceptions.ResponseError, "protocol"),
)


class Dialler:
    """Makes connections to the servers of one address.

    Args:
        address: where Redis is.
        timeout_seconds: for a connection with its handshake; each Sentinel that does not answer comes on top.
    """

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self._address = address
        self._timeout = timeout_seconds

    def connection_options(self) -> dict[str, Any]:
        """What redis-py's connections, but for the host and the port, are made with."""
        return {**self._address.options, **self.robustness()}

    def robustness(self) -> dict[str, Any]:
        """No retries inside a connection and short timeouts: whoever owns it decides what happens next.

        RESP2, because every server and proxy speaks it and the replies of scripts are the same in both. It
        has no push messages, so a reply is all that can come.
        """
        return {
            "socket_connect_timeout": self._timeout,
            "socket_timeout": self._timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }

    async def dial(self, stream: ReplyStream, node: Node | None = None) -> None:
        """Connect the stream: to the address's server, the master that Sentinel names now, or a given node.

        Raises:
            RedisUnavailable: it can't be reached or refuses us.
        """
        try:
            if self._address.kind == "sentinel":
                node = await self._ask_sentinels()
            elif node is None and self._address.nodes:
                node = self._address.nodes[0]
            async with asyncio.timeout(self._timeout):
                await _take_over(self._make_connection(node), stream)
        except (exceptions.RedisError, OSError, ValueError) as error:
            raise RedisUnavailable(reason_of(error)) from error

    def _make_connection(self, node: Node | None) -> AbstractConnection:
        options = self.connection_options()
        if node is None:
            return UnixDomainSocketConnection(**options)
        kind = SSLConnection if self._address.tls else Connection
        return kind(host=node[0], port=node[1], **options)

    async def _ask_sentinels(self) -> Node:
        options = {**self._address.sentinel_options, **self.robustness(), "ssl": self._address.tls}
        if self._address.tls:
            options |= {name: v for name, v in self._address.options.items() if name.startswith("ssl_")}
        sentinels = aioredis.Sentinel(  # type: ignore[no-untyped-call]
            list(self._address.nodes), sentinel_kwargs=options
        )
        try:
            async with asyncio.timeout(self._timeout * len(self._address.nodes)):
                host, port = await sentinels.discover_master(self._address.service)
        finally:
            await sentinels.aclose()
        return str(host), int(port)


async def _take_over(connection: AbstractConnection, stream: ReplyStream) -> None:
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        reader, writer = connection._reader, connection._writer  # noqa: SLF001 - there is no public way
        parser: Any = connection._parser  # noqa: SLF001
        if reader is None or writer is None or parser._reader.has_data():  # noqa: SLF001
            raise RedisUnavailable("protocol")
        stream.adopt(reader, writer)
        connection._reader = connection._writer = None  # noqa: SLF001 - it is the stream's now
    finally:
        await connection.disconnect(nowait=True)


def reason_of(error: BaseException) -> str:
    """The short word for why a connection failed."""
    chain = list(_chain(error))
    for kind, word in _WORDS:
        if any(isinstance(link, kind) for link in chain):
            return word
    if any("max number of clients" in str(link) for link in chain):
        return "refused"
    return "lost"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

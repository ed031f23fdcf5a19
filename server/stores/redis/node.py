"""One Redis server kept connected: dialled, verified, watched, and dialled again with jittered back-off.

redis-py finds the server and makes the handshake; the connection's socket is taken over from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import redis.asyncio as aioredis
from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from .address import Node, RedisAddress
from .deadlines import Deadlines
from .errors import RedisReplyError, RedisUnavailable, Reply, fail
from .events import get_logger
from .protocol import Command, Redirect, ReplyStream

log = get_logger(__name__)

BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_LONGEST_SECONDS = 2.0
_IDLE_SECONDS = 1.0

Dial = Callable[[ReplyStream], Awaitable[None]]


class LinkStatus:
    """What happened to a link so far: for health checks, metrics and people.

    Args:
        on_round_trip: called with the seconds of every round trip.

    Attributes:
        last_error: why Redis could last not serve, a short word; it stays after the recovery.
        last_error_time: when that was (UTC).
        latency_ms: the most recent round trip; None before the first.
        reconnects: how often a lost connection was made anew.
    """

    def __init__(self, on_round_trip: Callable[[float], None] | None = None) -> None:
        self._on_round_trip = on_round_trip
        self._latency_seconds: float | None = None
        self.last_error: str | None = None
        self.last_error_time: datetime | None = None
        self.reconnects = 0

    @property
    def latency_ms(self) -> float | None:
        """See the class."""
        return None if self._latency_seconds is None else self._latency_seconds * 1000.0

    def round_trip(self, seconds: float) -> None:
        """Note that a write was answered in full after so many seconds."""
        self._latency_seconds = seconds
        if self._on_round_trip is not None:
            self._on_round_trip(seconds)

    def fault(self, reason: str) -> None:
        """Note that Redis could not serve."""
        self.last_error = reason
        self.last_error_time = datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LinkContext:
    """What the nodes of a link share.

    Attributes:
        status: of the link.
        deadlines: of what is written.
        backlog: how many commands may be unanswered, for each node.
        verify_seconds: how long a node's handshake may take.
        stall_seconds: how long a node's oldest command may wait before its connection is cut.
    """

    status: LinkStatus
    deadlines: Deadlines
    backlog: int
    verify_seconds: float
    stall_seconds: float


class RedisNode:
    """A server, or whichever server has its role at the moment.

    Args:
        name: its name in logs and errors.
        dial: connects a stream.
        context: what it shares with the link's other nodes.
        must_be_master: a server that is not a master counts as not connected.
        on_lost: called when its connection ended, or its first could not be made.
        on_redirect: see ReplyStream.
    """

    def __init__(
        self,
        name: str,
        dial: Dial,
        context: LinkContext,
        *,
        must_be_master: bool = False,
        on_lost: Callable[[], None] | None = None,
        on_redirect: Redirect | None = None,
    ) -> None:
        self.name = name
        self._dial = dial
        self._context = context
        self._only_masters = self._must_be_master = must_be_master
        self._on_lost = on_lost
        self._on_redirect = on_redirect
        self._stream: ReplyStream | None = None
        self._refusal = "starting"
        self._known_state: bool | None = None  # connected or not; None before the first try
        self._connections = 0
        self._task: asyncio.Task[None] | None = None
        self.first_try = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return self._stream is not None and self._stream.accepts

    async def start(self) -> None:
        """Return once connected, or after the first failed try; it goes on trying in the background."""
        self.begin()
        await self.first_try.wait()

    def begin(self) -> None:
        """Start without waiting: from now on commands are refused until it is connected."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name=f"redis {self.name}")

    async def close(self) -> None:
        """Cut the connection; unanswered commands fail with the reason `closed`."""
        self._refusal = "closed"
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cut("closed")
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self.first_try.set()

    def send(
        self,
        command: Command,
        seconds: float | None = None,
        *,
        future: asyncio.Future[Reply] | None = None,
        redirections: int = 0,
    ) -> asyncio.Future[Reply]:
        """See ReplyStream.send; without a connection the future has failed already.

        Raises:
            RuntimeError: the node was never started.
        """
        stream = self._stream
        if stream is not None:
            return stream.send(command, seconds, future, redirections)
        if self._task is None and self._refusal != "closed":
            raise RuntimeError("the link to Redis was not started: await its start() first")
        if future is None:
            future = asyncio.get_running_loop().create_future()
        fail(future, RedisUnavailable(self._refusal, node=self.name))
        return future

    def node_of(self, key: bytes) -> str:
        """Return the name of the server that has a key: this one."""
        del key
        return self.name

    def broadcast(self, command: Command, seconds: float) -> list[asyncio.Future[Reply]]:
        """Send a command to every server, that is, to this one."""
        return [self.send(command, seconds)]

    async def _keep_connected(self) -> None:
        attempt = 0
        while True:
            try:
                stream = await self._connect()
            except RedisUnavailable as error:
                self._went_down(error)
            except Exception:  # whatever it is, Redis must be tried again
                log.exception("redis.connect_failed", server=self.name)
                self._went_down(RedisUnavailable("error"))
            else:
                self._came_up(stream)
                connected_at = monotonic()
                self._went_down(RedisUnavailable(await self._watch(stream)))
                if monotonic() - connected_at > BACKOFF_LONGEST_SECONDS:  # else it may be the same trouble
                    attempt = 0
            await asyncio.sleep(backoff_seconds(attempt))
            attempt += 1

    async def _connect(self) -> ReplyStream:
        stream = ReplyStream(
            backlog=self._context.backlog,
            deadlines=self._context.deadlines,
            node=self.name,
            on_round_trip=self._context.status.round_trip,
            on_fault=self._context.status.fault,
            on_redirect=self._on_redirect,
        )
        try:
            await self._dial(stream)
            async with asyncio.timeout(self._context.verify_seconds):
                await self._verify(stream)
        except TimeoutError:
            stream.cut("timeout")
            raise RedisUnavailable("timeout") from None
        except BaseException:
            stream.cut("closed")
            raise
        return stream

    async def _verify(self, stream: ReplyStream) -> None:
        """Check that it answers, and is a master if it must be (assumed if ROLE is forbidden)."""
        with contextlib.suppress(RedisReplyError):
            await stream.send(("PING",))
        if self._must_be_master:
            with contextlib.suppress(RedisReplyError):
                role = await stream.send(("ROLE",))
                if role[0] != b"master":
                    raise RedisUnavailable("readonly")

    async def _watch(self, stream: ReplyStream) -> str:
        """Wait until the connection is over, cutting it when it stalls and pinging it when it is idle."""
        stall = self._context.stall_seconds
        interval = min(_IDLE_SECONDS, stall / 4)
        while not stream.lost.done():
            await asyncio.wait([stream.lost], timeout=interval)
            unanswered = stream.oldest_unanswered_seconds()
            if unanswered > stall:
                stream.cut("stalled")
            elif unanswered == 0 and monotonic() - stream.last_answer_time >= _IDLE_SECONDS:
                stream.send(("PING",))
        return stream.lost.result()

    def _came_up(self, stream: ReplyStream) -> None:
        self._stream = stream
        self._must_be_master = self._only_masters
        self._connections += 1
        if self._connections > 1:
            self._context.status.reconnects += 1
        self._changed(connected=True)
        log.info("redis.connected", server=self.name)

    def _went_down(self, error: RedisUnavailable) -> None:
        self._stream = None
        self._refusal = error.reason
        if error.reason == "readonly":  # until a master is found, the same server again would be no better
            self._must_be_master = True
        self._context.status.fault(error.reason)
        if self._known_state is not False:
            detail = str(error.__cause__ or "") or None
            log.warning("redis.connection_lost", server=self.name, error=error.reason, detail=detail)
        self._changed(connected=False)

    def _changed(self, *, connected: bool) -> None:
        changed = connected is not self._known_state
        self._known_state = connected
        self.first_try.set()
        if changed and not connected and self._on_lost is not None:
            self._on_lost()


def backoff_seconds(attempt: int, bound_seconds: float = BACKOFF_LONGEST_SECONDS) -> float:
    """Return the wait before the next try: doubling, bounded, half of it random so that workers don't retry in step."""
    longest = min(bound_seconds, BACKOFF_FIRST_SECONDS * 2.0 ** min(attempt, 16))
    return random.uniform(longest / 2, longest)  # noqa: S311 - a jitter, not a secret


# From the most to the least specific: an error's chain holds several.
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
        """Return the arguments of redis-py's connections, but for host and port."""
        return {**self._address.options, **self.robustness()}

    def robustness(self) -> dict[str, Any]:
        """Return options without retries and with short timeouts: the link decides what happens next.

        The protocol is RESP2, because every server and proxy speaks it and the replies of scripts are the same. It
        has no push messages, so nothing but replies can arrive.
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
    """Return the short word for why a connection failed."""
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

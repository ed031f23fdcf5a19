"""Responses that their clients do not read: how long one may stand still, and how much all may hold together.

What the system's buffer does not take of a response stays in this process until the client has read on. Clients that
ask for much and read nothing would fill the memory and keep their connections for ever. So a large body is held in
pieces, each freed as soon as it is sent, and what is held is counted for all connections together.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from server.api.responses import LARGE_BYTES
from server.telemetry.context import RequestContext
from server.telemetry.metrics.index import Metrics
from server.telemetry.metrics.process import return_free_memory

if TYPE_CHECKING:
    from server.connections.protocol import Connection

log = structlog.get_logger(__name__)

_PIECE_BYTES = LARGE_BYTES
# How much the system takes beyond what is on its way to the client. It would take some megabytes, which count as ours
# where memory is limited (control groups), and are seen nowhere.
_SYSTEM_BYTES = 2 * _PIECE_BYTES
# What the two systems' buffers may take of a response while its client reads nothing, so it does not count as read.
_BUFFERED_BYTES = 2 * _SYSTEM_BYTES
# How often progress is looked for: a response may stand still for so much longer than its deadline.
_LOOK_SECONDS = 1.0
# So much is freed before it is worth giving back; that takes some milliseconds, in which nothing else runs.
_TRIM_BYTES = 8 << 20
_TRIM_SECONDS = 10.0
_SETTLE_SECONDS = 0.5
# No lingering: a close drops what the system's buffer still holds, instead of offering it for minutes.
_RESET = struct.pack("ii", 1, 0)
# An honest client's system reads within that time: younger responses are not cut for a new one.
_YOUNG_SECONDS = 0.25


class LargeBody(Payload):
    """A body in pieces: what is sent of it is freed.

    Args:
        body: more than `LARGE_BYTES`; nobody else should keep it.

    Attributes:
        left_bytes: what is not written yet.
    """

    _autoclose = True

    def __init__(self, body: bytes) -> None:
        super().__init__(None)
        self._size = self.left_bytes = len(body)
        self._pieces = [body[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES)]
        self._pieces.reverse()

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write a piece when the one before is sent."""
        try:
            while self._pieces:
                piece = self._pieces.pop()
                self.left_bytes -= len(piece)
                await writer.write(piece)
                del piece
                await writer.drain()  # which waits only if the system has not taken all of it
        finally:
            self._pieces.clear()  # what ends in an exception is a cycle, and may not be collected for long

    def drop(self) -> None:
        """Free what is not written yet, which nobody will read."""
        self._pieces.clear()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """What is not written yet, as text."""
        return b"".join(reversed(self._pieces)).decode(encoding, errors)


def limit_system_buffer(transport: asyncio.BaseTransport) -> None:
    """Have the system take no more of a connection's responses than it needs to keep the line busy."""
    connection = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux, macOS
    if option is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.IPPROTO_TCP, option, _SYSTEM_BYTES)


@dataclass(slots=True)
class _Unread:
    """One of them.

    Attributes:
        transport: where it is written; the connection forgets its own when it is closed.
        body: what is written in pieces; None for a response that is written whole.
        began: when it stood still first, in the seconds of the loop's clock.
        since: when it moved last, likewise.
        held_bytes: of this process's memory.
        unsent_bytes: at the last look.
        first_unsent_bytes: when it began.
        request: what it answers; None until that is known.
    """

    transport: asyncio.WriteTransport
    body: LargeBody | None
    began: float
    since: float
    held_bytes: int = 0
    unsent_bytes: int = 0
    first_unsent_bytes: int = 0
    request: RequestContext | None = None

    def __post_init__(self) -> None:
        self.unsent_bytes = self.first_unsent_bytes = self.unsent()

    def unsent(self) -> int:
        """How many bytes are not sent now."""
        left = 0 if self.body is None else self.body.left_bytes
        buffered: int = self.transport.get_write_buffer_size()
        return left + buffered

    def held(self) -> int:
        """How many bytes are held, at most. uvloop frees what it has been given when all of it is sent.

        A response that is written whole is there twice: its body, and head and body in one.
        """
        if self.body is None:
            return 2 * (_SYSTEM_BYTES + self.unsent_bytes)
        return self.body.left_bytes + _PIECE_BYTES

    def worth(self, now: float) -> tuple[float, float]:
        """What it has over others: the bytes a second that its client has read; among equals, when it moved last."""
        read = max(0, self.first_unsent_bytes - self.unsent_bytes - _BUFFERED_BYTES)
        return read / max(now - self.began, _YOUNG_SECONDS), self.since


class UnreadResponses:
    """Those of one worker. Costs nothing while clients read what they are sent.

    Args:
        metrics: counts what was cut.
        still_seconds: how long a response may stand still before its connection is cut.
        limit_bytes: how much all of them may hold. Where a new one needs room, those whose clients read least are
            cut; a single response may be larger than that.
    """

    def __init__(self, metrics: Metrics, *, still_seconds: float, limit_bytes: int) -> None:
        self._cuts = metrics.http_unread_responses_cut
        self._held = metrics.http_unread_response_bytes
        self._still_seconds = still_seconds
        self._limit_bytes = limit_bytes
        self._look_seconds = min(_LOOK_SECONDS, still_seconds / 8)
        self._unread: dict[Connection, _Unread] = {}
        self._held_bytes = 0
        self._freed_bytes = 0
        self._looking: asyncio.TimerHandle | None = None
        self._trimming: asyncio.TimerHandle | None = None
        self._trimmed_at = float("-inf")
        self._loop = asyncio.get_running_loop()

    def __contains__(self, connection: Connection) -> bool:
        """Whether a connection has a response that is not sent."""
        return connection in self._unread

    def make_room(self, size_bytes: int) -> bool:
        """Whether a response of so many bytes may be made: it fits, or does so when others are cut.

        None is cut so soon that its client can't have read yet. So of many responses that are asked for at the same
        moment, some are refused.
        """
        limit_bytes = self._limit_bytes - size_bytes
        if self._held_bytes > limit_bytes:
            self._cut_down(limit_bytes, self._loop.time() - _YOUNG_SECONDS)
        return self._held_bytes <= limit_bytes or not self._unread

    def paused(
        self, connection: Connection, transport: asyncio.WriteTransport, body: LargeBody | None
    ) -> None:
        """The system takes no more of a connection's response for now; `body` as in `_Unread`."""
        unread = self._unread.get(connection)
        if unread is not None and unread.body is not body:
            self.ended(connection)  # of the response before, which has been sent since
            unread = None
        if unread is None:
            now = self._loop.time()
            unread = self._unread[connection] = _Unread(transport, body, now, now)
            if self._looking is None:
                self._looking = self._loop.call_later(self._look_seconds, self._cut_overdue)
        self._hold(unread, unread.held())
        if self._held_bytes > self._limit_bytes:  # there was no question whether this one may be made
            self._cut_down(self._limit_bytes, self._loop.time(), spare=connection)

    def resumed(self, connection: Connection) -> None:
        """The system has taken what was written."""
        unread = self._unread.get(connection)
        if unread is None:
            return
        if unread.body is None or unread.body.left_bytes == 0:
            self.ended(connection)
        else:
            unread.since = self._loop.time()

    def identify(self, connection: Connection, request: RequestContext | None) -> None:
        """The request of a connection's response, for the log."""
        unread = self._unread.get(connection)
        if unread is not None:
            unread.request = request

    def ended(self, connection: Connection) -> None:
        """The response is sent, or its connection is closed."""
        unread = self._unread.pop(connection, None)
        if unread is None:
            return
        self._hold(unread, 0)
        if not self._unread and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def stillest(self, seconds: float) -> Connection | None:
        """The connection whose response has stood still for longest, and for so many seconds at least."""
        self._look()
        before = self._loop.time() - seconds
        found = min(self._unread.items(), key=lambda item: item[1].since, default=None)
        return None if found is None or found[1].since > before else found[0]

    def cut(self, connection: Connection, reason: str) -> None:
        """End a connection without sending the rest of its response.

        Args:
            connection: one that has such a response.
            reason: a word for the metric and the log: `timeout`, `buffer` or `connections`.
        """
        unread = self._unread[connection]
        self._cuts.labels(reason).inc()
        log.warning(
            "http.response_cut",
            reason=reason,
            client_ip=connection.peer,
            unsent_bytes=unread.unsent_bytes,
            still_ms=round((self._loop.time() - unread.since) * 1000),
            **({} if unread.request is None else unread.request.fields()),
        )
        self.ended(connection)
        unread.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        unread.transport.abort()  # a close would wait until the rest is read
        connection.force_close()
        if unread.body is not None:
            unread.body.drop()  # its task comes to that later, perhaps after many others that are answered before it

    def _cut_down(self, limit_bytes: int, before: float, spare: Connection | None = None) -> None:
        """Cut responses until so much is held; none before the least of them has stood still since an instant."""
        self._look()
        now = self._loop.time()
        for other, unread in sorted(self._unread.items(), key=lambda item: item[1].worth(now)):
            if self._held_bytes <= limit_bytes or unread.since > before:
                break
            if other is not spare:
                self.cut(other, "buffer")

    def _hold(self, unread: _Unread, held_bytes: int) -> None:
        """A response holds so much now."""
        grown = held_bytes - unread.held_bytes
        unread.held_bytes = held_bytes
        self._held_bytes += grown
        self._held.set(self._held_bytes)
        if grown >= 0:
            return
        self._freed_bytes -= grown
        if self._freed_bytes >= _TRIM_BYTES and self._trimming is None:
            # Not at once: the bytes are freed when the transport has let go of them.
            due = max(self._loop.time() + _SETTLE_SECONDS, self._trimmed_at + _TRIM_SECONDS)
            self._trimming = self._loop.call_at(due, self._trim)

    def _look(self) -> None:
        """See which have moved, and which are sent: the end of a body may go out without another pause."""
        now = self._loop.time()
        for connection, unread in list(self._unread.items()):
            unsent = unread.unsent()
            if unsent < unread.unsent_bytes:
                unread.since = now
            unread.unsent_bytes = unsent
            if not unsent:
                self.ended(connection)

    def _cut_overdue(self) -> None:
        self._looking = None
        self._look()
        before = self._loop.time() - self._still_seconds
        for connection in [one for one, unread in self._unread.items() if unread.since <= before]:
            self.cut(connection, "timeout")
        if self._unread:
            self._looking = self._loop.call_later(self._look_seconds, self._cut_overdue)

    def _trim(self) -> None:
        self._trimming = None
        self._trimmed_at = self._loop.time()
        self._freed_bytes = 0
        return_free_memory()

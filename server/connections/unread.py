"""Responses that their clients do not read: how long one may stand still, and how much all may hold together.

A response is written in one go, and what the system's buffer does not take stays in this process until the client has
read on. Clients that ask for much and read nothing would fill the memory and keep their connections for ever.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING

import structlog

from server.telemetry.context import RequestContext
from server.telemetry.metrics.index import Metrics
from server.telemetry.metrics.process import return_free_memory

if TYPE_CHECKING:
    from server.connections.protocol import Connection

log = structlog.get_logger(__name__)

# How often progress is looked for: a response may stand still for so much longer than its deadline.
_LOOK_SECONDS = 1.0
# So much is freed before it is worth giving back; that takes some milliseconds, in which nothing else runs.
_TRIM_BYTES = 32 << 20
_TRIM_SECONDS = 10.0
_SETTLE_SECONDS = 0.5
# No lingering: a close drops what the system's buffer still holds, instead of offering it for minutes.
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Unread:
    """One of them.

    Attributes:
        transport: where it is written; the connection forgets its own when it is closed.
        held_bytes: what was not sent when it began to stand still. It holds more of this process's memory:
            uvloop frees a buffer when all of it is sent, and what the kernel has taken is not counted.
        left_bytes: what was not sent at the last look.
        since: when it moved last, in the seconds of the loop's clock.
        request: what it answers; None until that is known.
    """

    transport: asyncio.WriteTransport
    held_bytes: int
    left_bytes: int
    since: float
    request: RequestContext | None = None


class UnreadResponses:
    """Those of one worker. Costs nothing while clients read what they are sent.

    Args:
        metrics: counts what was cut.
        still_seconds: how long a response may stand still before its connection is cut.
        limit_bytes: how much all of them may hold. Beyond it, those that have stood still for longest are cut; never
            the one that has just begun, so that a single response may be larger than that.
    """

    def __init__(self, metrics: Metrics, *, still_seconds: float, limit_bytes: int) -> None:
        self._cuts = metrics.http_unread_responses_cut
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

    def began(self, connection: Connection, transport: asyncio.WriteTransport) -> None:
        """The system takes no more of a connection's response for now."""
        size = transport.get_write_buffer_size()
        self._unread[connection] = _Unread(transport, size, size, self._loop.time())
        self._held_bytes += size
        if self._looking is None:
            self._looking = self._loop.call_later(self._look_seconds, self._cut_overdue)
        if self._held_bytes > self._limit_bytes:
            self._look()
            others = sorted(self._unread.items(), key=lambda item: item[1].since)
            for other, _ in others:
                if self._held_bytes <= self._limit_bytes:
                    break
                if other is not connection:
                    self.cut(other, "buffer")

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
        self._held_bytes -= unread.held_bytes
        self._freed_bytes += unread.held_bytes
        if not self._unread and self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._freed_bytes >= _TRIM_BYTES and self._trimming is None:
            # Not at once: the bytes are freed when the transport has let go of them.
            due = max(self._loop.time() + _SETTLE_SECONDS, self._trimmed_at + _TRIM_SECONDS)
            self._trimming = self._loop.call_at(due, self._trim)

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
            unsent_bytes=unread.left_bytes,
            still_ms=round((self._loop.time() - unread.since) * 1000),
            **({} if unread.request is None else unread.request.fields()),
        )
        self.ended(connection)
        unread.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
        unread.transport.abort()  # a close would wait until the rest is read
        connection.force_close()

    def _look(self) -> None:
        """See which have moved."""
        now = self._loop.time()
        for unread in self._unread.values():
            left = unread.transport.get_write_buffer_size()
            if left < unread.left_bytes:
                unread.since = now
            unread.left_bytes = left

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

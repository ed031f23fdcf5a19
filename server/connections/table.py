"""The connections of one worker: how many there may be, and how long a head may take."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from server.connections.refusals import RefusalWriter
from server.connections.unread import UnreadResponses
from server.telemetry.metrics.index import Metrics

if TYPE_CHECKING:
    from server.connections.protocol import Connection

# Over the bound, for health probes.
SPARE_CONNECTIONS = 16
# A request that its client has sent may not have been read yet: younger ones are not taken for idle.
_YOUNG_SECONDS = 1.0
# What is left of a head comes at once from an honest client: older ones make room where there is no other.
_SLOW_HEAD_SECONDS = 2.0
_LINGER_SECONDS = 2.0
# An honest client reads on within that time.
_STILL_SECONDS = 2.0
_SCAN_SECONDS = 0.1
# Deadlines that are so close together are one turn of the loop.
_TURN_SECONDS = 0.02


class Connections:
    """Keeps the bound and the deadlines of a worker's connections.

    At the bound, a new connection takes the place of the one that has been idle for longest, else of the one whose head
    is the slowest, else of the one whose client has not read on for longest. Where all are at work, it gets one of a
    few spare places: there, health probes are answered, and everything else is refused.

    Args:
        refusals: writes the answers.
        metrics: counts what was closed to make room.
        unread: the responses that clients do not read.
        limit: how many connections there may be, beside the spare ones.
        head_seconds: how long a head may take, from its first byte to its last; a new connection's, from its start.
    """

    def __init__(
        self,
        refusals: RefusalWriter,
        metrics: Metrics,
        unread: UnreadResponses,
        *,
        limit: int,
        head_seconds: float,
    ) -> None:
        self.refusals = refusals
        self.unread = unread
        self._limit = limit
        self._head_seconds = head_seconds
        self._count = metrics.tally(metrics.http_connections)
        self._closed_for_room = metrics.tally(metrics.http_idle_connections_closed)
        self._open: dict[Connection, None] = {}
        self._spare: dict[Connection, None] = {}
        # Both in the order of their deadlines, with the instant at which waiting began.
        self._heads: OrderedDict[Connection, float] = OrderedDict()
        self._lingering: OrderedDict[Connection, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        # Found idle at the last look, the longest first, with the instant since when.
        self._idle: deque[tuple[float, Connection]] = deque()
        self._next_look = 0.0
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self._open[connection] = None
        self._count.inc()
        self.head_started(connection)
        if len(self._open) - len(self._spare) > self._limit and not self._make_room():
            connection.make_spare()
            self._spare[connection] = None
            if len(self._spare) > SPARE_CONNECTIONS:
                # A probe sends its request at once: the oldest that has not is none.
                waiting = (other for other in self._spare if not other.is_busy or other is connection)
                self._drop(next(waiting))

    def closed(self, connection: Connection) -> None:
        """It is closed, or as good as closed."""
        if connection in self._open:
            del self._open[connection]
            self._count.dec()
        self._spare.pop(connection, None)
        self._heads.pop(connection, None)
        self._lingering.pop(connection, None)

    def head_started(self, connection: Connection) -> None:
        """It waits for the rest of a head."""
        self._heads[connection] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._head_seconds, self._end_overdue)

    def head_ended(self, connection: Connection) -> None:
        """The head is complete."""
        self._heads.pop(connection, None)

    def linger(self, connection: Connection) -> None:
        """It has been refused: close it when its client has had the time to read the answer."""
        self._heads.pop(connection, None)
        self._lingering[connection] = self._loop.time()
        self._arm()

    def promote(self, connection: Connection) -> bool:
        """Make a spare connection an ordinary one, if there is room."""
        if len(self._open) - len(self._spare) >= self._limit:
            return False
        self._spare.pop(connection, None)
        connection.make_ordinary()
        return True

    def _make_room(self) -> bool:
        """End a connection that has nothing under way, if there is one."""
        now = self._loop.time()
        idle = self._longest_idle(now)
        if idle is not None:
            self._closed_for_room.inc()
            self._drop(idle)
            return True
        for connection, begun in self._heads.items():
            if begun > now - _SLOW_HEAD_SECONDS:
                break
            if not connection.is_busy:
                self._drop(connection)
                return True
        still = self.unread.stillest(_STILL_SECONDS)
        if still is not None:
            self.closed(still)
            self.unread.cut(still, "connections")
        return still is not None

    def _longest_idle(self, now: float) -> Connection | None:
        """Looks at all of them, but seldom: what it finds serves for many."""
        while True:
            while self._idle:
                since, connection = self._idle.popleft()
                if connection in self._open and connection.idle_since == since:
                    return connection
            if now < self._next_look:
                return None
            found = [
                (idle, number, connection)
                for number, connection in enumerate(self._open)
                if (idle := connection.idle_since) is not None and idle < now - self._young(connection)
            ]
            found.sort(key=lambda entry: entry[:2])
            self._idle.extend((since, connection) for since, _, connection in found)
            if not found:
                self._next_look = now + _SCAN_SECONDS

    def _young(self, connection: Connection) -> float:
        return _YOUNG_SECONDS if connection in self._heads else 0.0

    def _drop(self, connection: Connection) -> None:
        """Close it without a word."""
        self.closed(connection)
        connection.force_close()

    def _end_overdue(self) -> None:
        """Answer the heads that are overdue, close those refused that have had their time; then wait for the next."""
        self._timer = None
        now = self._loop.time()
        for connection in _overdue(self._lingering, now - _LINGER_SECONDS):
            if connection in self.unread:  # it stays open until that is read or cut
                del self._lingering[connection]
                connection.force_close()
            else:
                self._drop(connection)
        for connection in _overdue(self._heads, now - self._head_seconds):
            del self._heads[connection]
            if connection.is_busy:  # with the request before this one
                self._heads[connection] = now
            else:
                connection.give_up_head()
        self._arm()

    def _arm(self) -> None:
        """One timer for all, for the earliest of their deadlines."""
        due = []
        if self._heads:
            due.append(next(iter(self._heads.values())) + self._head_seconds)
        if self._lingering:
            due.append(next(iter(self._lingering.values())) + _LINGER_SECONDS)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if due:
            self._timer = self._loop.call_at(
                max(min(due), self._loop.time() + _TURN_SECONDS), self._end_overdue
            )


def _overdue(waiting: OrderedDict[Connection, float], before: float) -> Iterator[Connection]:
    """Those that have waited since before an instant; each is gone from the dictionary when the next is asked for."""
    while waiting and next(iter(waiting.values())) <= before:
        yield next(iter(waiting))

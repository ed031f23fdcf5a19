"""Deadlines of what was written to Redis, with one timer for all: a late future fails, and nothing else happens.

A deadline measures Redis, not this process. It counts from the write. When it is over, what has arrived is read before
anything is given up. If the loop was late, its lateness is added, once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, Protocol

from .errors import RedisUnavailable, Reply, fail

# uvloop's timers count whole milliseconds and may be half of one early: near enough.
_EARLY_SECONDS: Final = 0.0005
# If a timer fires so much later than it was due, the loop was busy with something else.
_LATE_SECONDS: Final = 0.005


class Connection(Protocol):
    """What a write went to: a `ReplyStream`."""

    node: str
    """What errors call the server."""

    read_much: bool
    """Set by a read that may have left data in the socket."""

    def has_answered(self, number: int) -> bool:
        """Whether the command of this number has its reply, or never will."""

    def is_overdue(self) -> None:
        """Note that a written command has run out of time."""


class Write:
    """Commands that were written together and have the same deadline.

    Args:
        connection: where they were written to.
        number: of the last of them, counted over all commands of the connection.
        seconds: how long Redis may take.
        futures: of their replies.
    """

    __slots__ = ("connection", "expiry", "extended", "futures", "number", "seconds")

    def __init__(
        self, connection: Connection, number: int, seconds: float, futures: Sequence[asyncio.Future[Reply]]
    ) -> None:
        self.connection = connection
        self.number = number
        self.seconds = seconds
        self.futures = futures
        self.expiry = 0.0
        self.extended = False


class Deadlines:
    """Writes in lanes, one for each length of deadline, so that every lane is in the order of expiry.

    Args:
        on_expired: called with the word `timeout` for each future that ran out of time.
    """

    def __init__(self, on_expired: Callable[[str], None]) -> None:
        self._on_expired = on_expired
        self._lanes: dict[float, deque[Write]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, write: Write, now: float) -> None:
        """Fail the futures of a write, made `now`, with the reason `timeout` unless they are done in time."""
        self._append(write, now + write.seconds)

    def close(self) -> None:
        """Forget all writes; none of their futures fails any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lanes.clear()

    def _append(self, write: Write, expiry: float) -> None:
        write.expiry = expiry
        lane = self._lanes.get(write.seconds)
        if lane is None:
            lane = self._lanes[write.seconds] = deque()
        # A long deadline must not keep every reply until it is over.
        while lane and lane[0].connection.has_answered(lane[0].number):
            lane.popleft()
        lane.append(write)
        if self._timer is None or expiry < self._due:
            self._arm(expiry)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._due = due
        self._timer = self._loop.call_later(max(0.0, due - monotonic()), self._expire, self._loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = monotonic()
        expired: list[Write] = []
        next_due: float | None = None
        for seconds, lane in list(self._lanes.items()):
            while lane and (
                lane[0].expiry <= now + _EARLY_SECONDS or lane[0].connection.has_answered(lane[0].number)
            ):
                write = lane.popleft()
                if not write.connection.has_answered(write.number):
                    expired.append(write)
            if not lane:
                del self._lanes[seconds]
            elif next_due is None or lane[0].expiry < next_due:
                next_due = lane[0].expiry
        if next_due is not None:
            self._arm(next_due)
        if expired:
            self._read_first(expired, now, loop)

    def _read_first(self, expired: list[Write], now: float, loop: asyncio.AbstractEventLoop) -> None:
        """Look at these writes once more after every socket has been read.

        Two turns: the first may run before the sockets of its turn are read, the second comes after them, with
        asyncio as with uvloop.
        """
        for write in expired:
            write.connection.read_much = False
        loop.call_soon(loop.call_soon, self._give_up, expired, now, loop)

    def _give_up(self, expired: list[Write], now: float, loop: asyncio.AbstractEventLoop) -> None:
        still_reading: list[Write] = []
        for write in expired:
            if write.connection.has_answered(write.number):
                continue
            if write.connection.read_much:
                still_reading.append(write)
                continue
            lateness = now - write.expiry
            if lateness > _LATE_SECONDS and not write.extended:
                # What stopped this process (a paused container, say) may have stopped Redis, too.
                write.extended = True
                self._append(write, monotonic() + min(lateness, write.seconds))
                continue
            node = write.connection.node
            for future in write.futures:
                if not future.done():
                    fail(future, RedisUnavailable("timeout", outcome_unknown=True, node=node))
                    self._on_expired("timeout")
            write.connection.is_overdue()
        if still_reading:
            self._read_first(still_reading, now, loop)

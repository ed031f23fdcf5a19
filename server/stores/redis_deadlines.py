"""Deadlines for many futures at the cost of one timer: a late future fails, and nothing else happens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from server.stores.redis_errors import RedisUnavailable, Reply, fail

# uvloop's timers count whole milliseconds and may be half of one early: near enough.
_EARLY_SECONDS = 0.0005


class Deadlines:
    """Futures in lanes, one for each length of deadline, so that every lane is in the order of expiry.

    Args:
        on_expired: called with the word `timeout` for each future that ran out of time.
    """

    def __init__(self, on_expired: Callable[[str], None]) -> None:
        self._on_expired = on_expired
        self._lanes: dict[float, deque[tuple[float, asyncio.Future[Reply]]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def add(self, future: asyncio.Future[Reply], seconds: float) -> None:
        """Fail the future with the reason `timeout` unless it is done `seconds` from now, to about 1 ms.

        Both asyncio and uvloop read their sockets before they look at their timers: after a busy moment of
        the loop a reply that is there already is in time.
        """
        expiry = monotonic() + seconds
        lane = self._lanes.get(seconds)
        if lane is None:
            lane = self._lanes[seconds] = deque()
        while lane and lane[0][1].done():  # a long deadline must not keep every reply until it is over
            lane.popleft()
        lane.append((expiry, future))
        if self._timer is None or expiry < self._due:
            self._arm(expiry, future.get_loop())

    def close(self) -> None:
        """Forget all futures; none of them fails any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lanes.clear()

    def _arm(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = loop.call_later(max(0.0, due - monotonic()), self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = monotonic()
        next_due: float | None = None
        for seconds, lane in list(self._lanes.items()):
            while lane:
                expiry, future = lane[0]
                if not future.done():
                    if expiry > now + _EARLY_SECONDS:
                        break
                    fail(future, RedisUnavailable("timeout", outcome_unknown=True))
                    self._on_expired("timeout")
                lane.popleft()
            if not lane:
                del self._lanes[seconds]
            elif next_due is None or lane[0][0] < next_due:
                next_due = lane[0][0]
        if next_due is not None:
            self._arm(next_due, loop)

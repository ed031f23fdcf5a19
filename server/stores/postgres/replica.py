"""Watches a streaming replica: whether it may be read from, and how far it is behind.

Its own word for that would not do. A replica whose connection to the primary is lost has replayed all that it got, and
two machines' clocks differ. So the primary is asked for its position in the log of changes, and how long the replica
takes to get there is measured here, on one clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import Final

import structlog

from server.stores.postgres.database import Database
from server.stores.postgres.errors import DatabaseUnavailable, QueryFailed, unavailable
from server.tasks import Periodic

log = structlog.get_logger(__name__)

CHECK_SECONDS: Final = 2.0
# A primary and a replica that work answer at once. With two checks, it bounds what is not noticed yet.
CHECK_DEADLINE_SECONDS: Final = 2.0
# After a failed read: long enough that a replica which passes the checks and fails the reads costs little.
PAUSE_SECONDS: Final = 5.0
# A commit that does not wait for the disk is in the log so much later (three times wal_writer_delay).
_ASYNCHRONOUS_COMMIT_SECONDS: Final = 1.0

_NOT_CHECKED: Final = "not_checked"


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the primary was at a time."""

    time: float
    position: int


class Replica(Periodic):
    """A replica of the primary, for reads that may be stale by `max_lag_seconds`.

    The checks run in the background, so that a read never waits for one.

    Args:
        database: the replica.
        primary: what it is a replica of.
        max_lag_seconds: it is not read from while it is further behind.
        interval_seconds: the pause between two checks.

    Attributes:
        database: the replica.
        lag_seconds: how far it was behind at the last check.
    """

    def __init__(
        self,
        database: Database,
        primary: Database,
        *,
        max_lag_seconds: float,
        interval_seconds: float = CHECK_SECONDS,
    ) -> None:
        super().__init__("replica-watch", interval_seconds=interval_seconds)
        self.database = database
        self._primary = primary
        self._max_lag_seconds = max_lag_seconds
        self._trust_seconds = interval_seconds + 2 * CHECK_DEADLINE_SECONDS
        # The primary's positions that the replica had not reached: enough of them to see that it is too far behind.
        self._marks: deque[_Mark] = deque()
        self._most_marks = int(max_lag_seconds / interval_seconds) + 2
        self.lag_seconds = 0.0
        self._checked_at = 0.0
        self._lost_at = -PAUSE_SECONDS
        self._fault: str | None = _NOT_CHECKED

    @property
    def visible_after_seconds(self) -> float:
        """After this time every change of the primary is visible to who asks `is_usable` before they read."""
        return self._max_lag_seconds + 2 * self._trust_seconds + _ASYNCHRONOUS_COMMIT_SECONDS

    @property
    def is_usable(self) -> bool:
        """Whether to read from it."""
        return self._fault is None and monotonic() - self._checked_at <= self._trust_seconds

    async def start(self) -> None:
        """Check once before the first read, then go on in the background."""
        await self.once()
        await super().start()

    async def close(self) -> None:
        """End the checks, and close the connections."""
        await super().close()
        await self.database.close()

    async def check(self) -> None:
        """Whether it is read from; health checks call this.

        Raises:
            DatabaseUnavailable: it is not, for its `reason`: `lagging`, `not_a_replica`, `primary` (that one does not
                answer, so nothing is known), or why there was no answer.
        """
        if self._fault is not None:
            raise unavailable(self._fault)

    def lose(self, reason: str) -> None:
        """Stop reading from it for some seconds, after a read that failed."""
        self._lost_at = monotonic()
        self._note(reason)

    async def once(self) -> None:
        """Look where the primary and the replica are."""
        fault = await self._look()
        self._checked_at = monotonic()
        if fault is not None or self._checked_at - self._lost_at >= PAUSE_SECONDS:
            self._note(fault)

    async def _look(self) -> str | None:
        """What speaks against reading from it, in a word."""
        asked_at = monotonic()
        try:
            async with asyncio.timeout(CHECK_DEADLINE_SECONDS):
                _, written = await self._primary.wal_position()
        except (DatabaseUnavailable, QueryFailed, TimeoutError):
            return "primary"
        replayed = None
        try:
            async with asyncio.timeout(CHECK_DEADLINE_SECONDS):
                is_replica, replayed = await self.database.wal_position()
        except TimeoutError:
            return "timeout"
        except DatabaseUnavailable as error:
            return error.reason
        except QueryFailed:
            return "not_a_replica"
        finally:
            self._measure_lag(asked_at, written, replayed)
        if not is_replica or replayed is None:
            return "not_a_replica"
        return "lagging" if self.lag_seconds > self._max_lag_seconds else None

    def _measure_lag(self, asked_at: float, written: int | None, replayed: int | None) -> None:
        marks = self._marks
        if written is not None and (not marks or marks[-1].position < written):
            marks.append(_Mark(asked_at, written))
        while replayed is not None and marks and marks[0].position <= replayed:
            marks.popleft()
        if len(marks) > self._most_marks:
            del marks[1]  # the oldest says how long it is; the newest, when it is no longer too long
        self.lag_seconds = monotonic() - marks[0].time if marks else 0.0

    def _note(self, fault: str | None) -> None:
        """Log the loss of the replica and its return, each once."""
        if fault is not None and self._fault in {None, _NOT_CHECKED}:
            log.warning("database.replica_unused", error=fault, lag_seconds=round(self.lag_seconds, 1))
        elif fault is None and self._fault not in {None, _NOT_CHECKED}:
            log.info("database.replica_used")
        self._fault = fault

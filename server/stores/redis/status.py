"""What is known about the state of Redis: an exact account for health checks, metrics and people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The link at one moment.

    Attributes:
        connected: commands can be sent; with a Cluster, to every master.
        last_error: why Redis could last not serve, a short word; it stays after the recovery.
        last_error_time: when that was (UTC).
        latency_ms: the most recent round trip; None before the first.
        reconnects: how often a lost connection was made anew.
    """

    connected: bool
    last_error: str | None
    last_error_time: datetime | None
    latency_ms: float | None
    reconnects: int


class StatusKeeper:
    """Collects what the parts of a link report.

    Args:
        on_round_trip: also told every round trip, in seconds.
    """

    def __init__(self, on_round_trip: Callable[[float], None] | None = None) -> None:
        self._callback = on_round_trip
        self._latency_seconds: float | None = None
        self._last_error: str | None = None
        self._last_error_time: datetime | None = None
        self._reconnects = 0

    def round_trip(self, seconds: float) -> None:
        """A write was answered in full after so many seconds."""
        self._latency_seconds = seconds
        if self._callback is not None:
            self._callback(seconds)

    def fault(self, reason: str) -> None:
        """Redis could not serve."""
        self._last_error = reason
        self._last_error_time = datetime.now(UTC)

    def reconnected(self) -> None:
        """A connection that was lost is there again."""
        self._reconnects += 1

    def snapshot(self, *, connected: bool) -> LinkStatus:
        """The account as it stands."""
        latency_ms = None if self._latency_seconds is None else self._latency_seconds * 1000.0
        return LinkStatus(connected, self._last_error, self._last_error_time, latency_ms, self._reconnects)

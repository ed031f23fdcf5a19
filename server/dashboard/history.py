"""The last hours in points, small enough for one Redis value: one every few seconds lately, one a minute before."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import orjson

from server.dashboard.totals import COUNTERS, GAUGES, QUERY_BOUNDS_MS, REQUEST_BOUNDS_MS, Routes, Totals

FINE_SECONDS: Final = 600
COARSE_STEP_SECONDS: Final = 60
KEPT_SECONDS: Final = 3 * 3600
WINDOW_SECONDS: Final = 300

# Change the number with the meaning: a history that an older version has stored is dropped.
_FORMAT: Final = [1, len(COUNTERS), len(GAUGES), len(REQUEST_BOUNDS_MS), len(QUERY_BOUNDS_MS)]
_LARGEST_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Point:
    """What was counted within some seconds, up to a time (seconds since 1970), and the highest of each gauge."""

    time: int
    seconds: int
    counters: tuple[float, ...]
    requests: tuple[float, ...]
    queries: tuple[float, ...]
    gauges: tuple[float, ...]

    def __getitem__(self, name: str) -> float:
        """A counter or a gauge by its name."""
        return self.counters[COUNTERS.index(name)] if name in COUNTERS else self.gauges[GAUGES.index(name)]

    def plus(self, later: Point) -> Point:
        """The two as one."""
        return Point(
            later.time,
            self.seconds + later.seconds,
            _sum(self.counters, later.counters),
            _sum(self.requests, later.requests),
            _sum(self.queries, later.queries),
            tuple(map(max, self.gauges, later.gauges)),
        )


@dataclass(slots=True)
class History:
    """The points, oldest first, and what the next one is counted from.

    Args:
        points: at most KEPT_SECONDS of them.
        time: of the last totals, seconds since 1970; 0 before the first ones.
        last: those totals.
        routes_before: the routes' totals at two earlier times, to find what was slow lately.
    """

    points: list[Point] = field(default_factory=list)
    time: int = 0
    last: Totals | None = None
    routes_before: list[tuple[int, Routes]] = field(default_factory=list)

    def add(self, totals: Totals, now: int) -> None:
        """Add a point up to `now` from what the workers have counted; a time that is not later is ignored."""
        if now <= self.time:
            return
        if self.last is not None:
            self._append(self.last, totals, now)
        if not self.routes_before or now - self.routes_before[-1][0] >= WINDOW_SECONDS:
            self.routes_before = [*self.routes_before[-1:], (now, totals.routes)]
        self.time, self.last = now, totals

    def window(self, seconds: int = WINDOW_SECONDS) -> Point | None:
        """The last seconds as one point; None where there is none."""
        whole: Point | None = None
        for point in self.points:
            if point.time > self.time - seconds:
                whole = point if whole is None else whole.plus(point)
        return whole

    def routes(self) -> Routes:
        """What each route did lately: five to ten minutes, or since the first sample."""
        if self.last is None:
            return {}
        before = self.routes_before[0][1]
        rows = {name: _since(before.get(name), row) for name, row in self.last.routes.items()}
        return {name: row for name, row in rows.items() if sum(row[1:]) > 0}

    def pack(self) -> bytes:
        """For Redis; `unpack` is the way back."""
        points = [(p.time, p.seconds, p.counters, p.requests, p.queries, p.gauges) for p in self.points]
        return zlib.compress(orjson.dumps([_FORMAT, points, self.time, self.last, self.routes_before]), 6)

    @classmethod
    def unpack(cls, packed: bytes) -> Self | None:
        """The history that was packed; None if another version has written it, or it is no history."""
        try:
            unpacker = zlib.decompressobj()
            kept_format, points, time, last, before = orjson.loads(
                unpacker.decompress(packed, _LARGEST_BYTES)
            )
            if kept_format != _FORMAT:
                return None
            return cls(
                [Point(t, s, *map(tuple, rows)) for t, s, *rows in points],
                time,
                None if last is None else _totals(last),
                [(at, _routes(rows)) for at, rows in before],
            )
        except (zlib.error, ValueError, TypeError, KeyError):
            return None

    def _append(self, last: Totals, totals: Totals, now: int) -> None:
        restarted = any(new < old for old, new in zip(last.counters, totals.counters, strict=True))
        if restarted:
            self.routes_before = [(now, {})]
        self.points.append(
            Point(
                now,
                now - self.time,
                _since(None if restarted else last.counters, totals.counters),
                _since(None if restarted else last.requests, totals.requests),
                _since(None if restarted else last.queries, totals.queries),
                totals.gauges,
            )
        )
        self._condense(now)

    def _condense(self, now: int) -> None:
        """Join what is older than FINE_SECONDS into minutes, and forget what is older than KEPT_SECONDS."""
        condensed: list[Point] = []
        for point in self.points:
            previous = condensed[-1] if condensed else None
            if point.time <= now - KEPT_SECONDS:
                continue
            if (
                previous is not None
                and point.time <= now - FINE_SECONDS
                and previous.time // COARSE_STEP_SECONDS == point.time // COARSE_STEP_SECONDS
            ):
                condensed[-1] = previous.plus(point)
            else:
                condensed.append(point)
        self.points = condensed


def _since(before: Sequence[int] | None, now: Sequence[int]) -> tuple[int, ...]:
    """How much was added; workers that were all restarted have counted what they have."""
    if before is None or any(new < old for old, new in zip(before, now, strict=True)):
        return tuple(now)
    return tuple(new - old for old, new in zip(before, now, strict=True))


def _sum(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _routes(rows: dict[str, list[int]]) -> Routes:
    return {name: tuple(row) for name, row in rows.items()}


def _totals(row: dict[str, Any]) -> Totals:
    routes = _routes(row.pop("routes"))
    return Totals(routes=routes, **{name: tuple(values) for name, values in row.items()})

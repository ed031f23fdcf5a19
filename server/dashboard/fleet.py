"""The histories of several machines as one: what all of them have counted, on one time line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from server.dashboard.history import (
    COARSE_STEP_SECONDS,
    FINE_SECONDS,
    GAUGES,
    KEPT_SECONDS,
    History,
    Point,
    Routes,
)

# A machine without a new point for so long has ended; what it has counted before stays in the charts.
LIVE_SECONDS: Final = 30
FINE_STEP_SECONDS: Final = 5
# A point that covers more than this follows a time without any count.
GAP_SECONDS: Final = 150
_HIGHEST: Final = frozenset({"memory_percent"})  # of the machines; the other gauges add up


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the dashboard shows.

    Args:
        machines: how many of them count at present.
        points: for the charts, oldest first.
        window: the last minutes of those machines; None where nothing was counted.
        routes: what each route did there lately.
    """

    machines: int
    points: list[Point]
    window: Point | None
    routes: Routes

    @classmethod
    def of(cls, histories: Sequence[History]) -> Fleet:
        """The histories of all machines together; one alone stays as it is."""
        known = [history for history in histories if history.time]
        if len(known) < 2:
            alone = known[0] if known else History()
            return cls(1, alone.points, alone.window(), alone.routes())
        newest = max(history.time for history in known)
        live = [history for history in known if history.time > newest - LIVE_SECONDS]
        windows = [window for history in live if (window := history.window()) is not None]
        routes: dict[str, tuple[int, ...]] = {}
        for history in live:
            for name, row in history.routes().items():
                routes[name] = tuple(
                    a + b for a, b in zip(routes.get(name, (0,) * len(row)), row, strict=True)
                )
        points = _on_one_line(known, end=min(history.time for history in live))
        return cls(len(live), points, _together(windows), routes)


def _together(points: Sequence[Point]) -> Point | None:
    """What several machines have counted in the same time."""
    if not points:
        return None
    return Point(
        max(point.time for point in points),
        max(point.seconds for point in points),
        _sums([point.counters for point in points]),
        _sums([point.requests for point in points]),
        _sums([point.queries for point in points]),
        tuple(
            max(values) if name in _HIGHEST else sum(values)
            for name, values in zip(
                GAUGES, zip(*(point.gauges for point in points), strict=True), strict=True
            )
        ),
    )


def _on_one_line(histories: Sequence[History], *, end: int) -> list[Point]:
    """Points at the same times for all: each machine's own are spread over the steps that they cover.

    Args:
        histories: of which each has its points at other times.
        end: later times are left out, because not every machine has stored them yet.
    """
    end -= end % FINE_STEP_SECONDS
    by_step: dict[int, list[Point]] = {}
    for history in histories:
        parts: dict[int, Point] = {}
        for point in history.points:
            for part in _parts(point, end):
                former = parts.get(part.time)
                parts[part.time] = part if former is None else former.plus(part)
        for step, part in parts.items():
            by_step.setdefault(step, []).append(part)
    joined = ((step, _together(parts)) for step, parts in sorted(by_step.items()))
    return [
        Point(step, _length(step, end), sums.counters, sums.requests, sums.queries, sums.gauges)
        for step, sums in joined
        if sums is not None and end - KEPT_SECONDS < step <= end
    ]


def _parts(point: Point, end: int) -> Iterator[Point]:
    """What of a point falls into each step of the line."""
    seconds = min(point.seconds, GAP_SECONDS)
    at = point.time - seconds
    while at < point.time:
        step = _step_after(at, end)
        until = min(step, point.time)
        share = (until - at) / point.seconds
        yield Point(
            step,
            until - at,
            tuple([share * count for count in point.counters]),
            tuple([share * count for count in point.requests]),
            tuple([share * count for count in point.queries]),
            point.gauges,
        )
        at = until


def _step_after(at: int, end: int) -> int:
    """The end of the step that the second after `at` belongs to."""
    length = _length(at + 1, end)
    return at - at % length + length


def _length(time: int, end: int) -> int:
    """How long the step is that a time belongs to; long steps end where the short ones begin."""
    begin = end - FINE_SECONDS
    return FINE_STEP_SECONDS if time > begin - begin % COARSE_STEP_SECONDS else COARSE_STEP_SECONDS


def _sums(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(map(sum, zip(*rows, strict=True)))

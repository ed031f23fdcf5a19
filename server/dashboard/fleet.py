"""What the dashboard shows: the histories of several machines as one time line, and the six key metrics.

The key metrics have thresholds and say what to do about them: docs/performance-monitoring.md as code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from server.dashboard.history import (
    COARSE_STEP_SECONDS,
    FINE_SECONDS,
    GAUGES,
    KEPT_SECONDS,
    QUERY_BOUNDS_MS,
    REQUEST_BOUNDS_MS,
    History,
    Point,
    Routes,
    quantile_ms,
)

# A machine without a new point for so long has ended; what it has counted before stays in the charts.
LIVE_SECONDS: Final = 30
FINE_STEP_SECONDS: Final = 5
# A point that covers more than this follows a time without any count.
GAP_SECONDS: Final = 150
_HIGHEST: Final = frozenset({"memory_percent"})  # of the machines; the other gauges add up
State = Literal["good", "warning", "critical", "unknown"]
Unit = Literal["ms", "%"]


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


@dataclass(frozen=True, slots=True)
class KeyMetric:
    """A metric, and from which values on it needs attention.

    Args:
        name: camelCase, as in the answer of /api/dashboard.
        title: for people.
        unit: of the value and of the thresholds.
        warning: a value here or beyond is a warning.
        critical: here or beyond it is critical.
        least: so many events, in five minutes, for a warning and for a critical state: one slow request at night
            is none. They are those of the alerts.
        events: what these events are called.
        action: what to do.
        runbook: the section of docs/performance-monitoring.md.
    """

    name: str
    title: str
    unit: Unit
    warning: float
    critical: float
    least: tuple[int, int]
    events: str
    action: str
    runbook: str

    def state_of(self, value: float | None, events: int) -> State:
        """Whether a value, from so many events, is good."""
        if value is None:
            return "unknown"
        sign = 1 if self.critical > self.warning else -1
        if sign * value >= sign * self.critical and events >= self.least[1]:
            return "critical"
        if sign * value >= sign * self.warning:
            return "warning" if events >= self.least[0] else "unknown"
        return "good"

    def as_json(self, value: float | None, events: int) -> dict[str, Any]:
        """Its entry in the answer; the value has two decimals."""
        return {
            "name": self.name,
            "title": self.title,
            "value": None if value is None else round(value, 2),
            "unit": self.unit,
            "state": self.state_of(value, events),
            "warning": self.warning,
            "critical": self.critical,
            "basis": f"{events} {self.events}" if self.events else "now",
            "action": self.action,
            "runbook": self.runbook,
        }


KEY_METRICS: Final = (
    KeyMetric(
        "responseTime", "p95 response time", "ms", 200, 500, (100, 100), "responses",
        "Which part of Server-Timing grew?", "slow-responses",
    ),
    KeyMetric(
        "cacheHitRate", "Cache hit rate", "%", 80, 60, (100, 100), "reads",
        "Was the content just edited, or is Redis down?", "a-low-hit-rate",
    ),
    KeyMetric(
        "queryTime", "p95 query time", "ms", 50, 200, (100, 100), "queries",
        "database.slow_query names the query.", "slow-queries",
    ),
    KeyMetric(
        "errorRate", "Error rate (5xx)", "%", 0.1, 1, (5, 10), "errors",
        "http.unhandled_error holds the traceback.", "errors",
    ),
    KeyMetric(
        "rejections", "Rate limit rejections", "%", 1, 5, (20, 50), "rejections",
        "One client, or a limit that is too low?", "many-rejections",
    ),
    KeyMetric(
        "memory", "Memory", "%", 70, 90, (0, 0), "",
        "One worker that grows, or too many of them?", "little-memory-left",
    ),
)  # fmt: skip


def key_metrics(window: Point | None) -> list[dict[str, Any]]:
    """The six of a window of time, in their order."""
    measured = {} if window is None else _measure(window)
    return [metric.as_json(*measured.get(metric.name, (None, 0))) for metric in KEY_METRICS]


def _measure(window: Point) -> Mapping[str, tuple[float | None, int]]:
    """Value and number of events by name."""
    requests, errors, rejected = (int(window[name]) for name in ("requests", "errors", "rejected"))
    reads = int(window["hits"] + window["misses"])
    memory = window["memory_percent"]
    return {
        "responseTime": (quantile_ms(0.95, window.requests, REQUEST_BOUNDS_MS), int(sum(window.requests))),
        "cacheHitRate": (share(window["hits"], reads), reads),
        "queryTime": (quantile_ms(0.95, window.queries, QUERY_BOUNDS_MS), int(sum(window.queries))),
        "errorRate": (share(errors, requests), errors),
        "rejections": (share(rejected, requests), rejected),
        "memory": (None if memory < 0 else memory, 0),
    }


def share(part: float, whole: float) -> float | None:
    """In percent; None if nothing was counted."""
    return 100 * part / whole if whole else None

"""The six key metrics with their thresholds and what to do about them: docs/performance-monitoring.md as code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from server.dashboard.history import QUERY_BOUNDS_MS, REQUEST_BOUNDS_MS, Point, quantile_ms

State = Literal["good", "warning", "critical", "unknown"]
Unit = Literal["ms", "%"]


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

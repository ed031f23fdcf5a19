"""What the workers of a machine have counted, in the few numbers that the dashboard is made of, and their last hours.

The hours are points, small enough for one Redis value: one every few seconds lately, one a minute before.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import orjson

from server.telemetry.metrics.index import QUERY_SECONDS, REQUEST_SECONDS

REQUEST_BOUNDS_MS: Final = tuple(1000 * bound for bound in REQUEST_SECONDS)
QUERY_BOUNDS_MS: Final = tuple(1000 * bound for bound in QUERY_SECONDS)
COUNTERS: Final = (
    "requests", "errors", "rejected", "hits", "misses", "allowed", "denied", "lag_us", "lag_count",
)  # fmt: skip
GAUGES: Final = ("pool_in_use", "pool_size", "pool_waiters", "memory_percent")
NOT_KNOWN: Final = -1.0  # the value of a gauge that can't be read
# As in the recording rules for Prometheus; requests of the dashboard itself are no traffic either.
_NO_TRAFFIC: Final = re.compile(r"/(|livez|readyz|api/health|api/metrics.*|api/dashboard|dashboard.*)")
Labels = Mapping[str, str]
Routes = Mapping[str, tuple[int, ...]]
FINE_SECONDS: Final = 600
COARSE_STEP_SECONDS: Final = 60
KEPT_SECONDS: Final = 3 * 3600
WINDOW_SECONDS: Final = 300
# Change the number with the meaning: a history that an older version has stored is dropped.
_FORMAT: Final = [1, len(COUNTERS), len(GAUGES), len(REQUEST_BOUNDS_MS), len(QUERY_BOUNDS_MS)]
_LARGEST_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts up to now, and the gauges of this moment.

    Args:
        counters: in the order of COUNTERS; probes and scrapes are no requests.
        requests: how many took how long, by the bounds in REQUEST_BOUNDS_MS; rejections are left out.
        queries: the same of the database, by QUERY_BOUNDS_MS.
        gauges: in the order of GAUGES.
        routes: microseconds in all and then counts by REQUEST_BOUNDS_MS, by method and template.
    """

    counters: tuple[int, ...]
    requests: tuple[int, ...]
    queries: tuple[int, ...]
    gauges: tuple[float, ...]
    routes: Routes


def read_totals(exposition: Mapping[str, Any]) -> Totals:
    """The totals of an exposition of `Metrics.render_json`."""
    samples = _Samples(exposition)
    limit = samples.total("process_memory_limit_bytes")
    memory = 100 * samples.total("process_memory_rss_bytes") / limit if limit > 0 else NOT_KNOWN
    requests, routes = _read_durations(samples)
    queries = [0.0] * (len(QUERY_BOUNDS_MS) + 1)
    for labels, value in samples.of("database_query_duration_seconds_bucket"):
        if labels["query"] != "ping":
            queries[_place(QUERY_SECONDS, labels["le"])] += value
    return Totals(
        counters=_read_counters(samples),
        requests=_apart(requests),
        queries=_apart(queries),
        gauges=(
            samples.total("database_pool_in_use"),
            samples.total("database_pool_size"),
            samples.total("database_pool_waiters"),
            round(memory, 2),
        ),
        routes={name: (round(row[0]), *_apart(row[1:])) for name, row in routes.items()},
    )


def read_workers(exposition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How each worker process of this machine decides rate limits, by process id.

    Returns:
        `worker` (its process id, empty where it is the only one), `alone` (it decides without Redis), and `decisions`
        by source since it started.
    """
    samples = _Samples(exposition)
    workers: dict[str, dict[str, Any]] = {}
    for labels, value in samples.of("rate_limit_worker_alone"):
        pid = labels.get("pid", "")
        workers[pid] = {"worker": pid, "alone": value == 1, "decisions": {}}
    for labels, value in samples.of("rate_limit_worker_decisions"):
        if (worker := workers.get(labels.get("pid", ""))) is not None:
            worker["decisions"][labels["source"]] = round(value)
    return [workers[pid] for pid in sorted(workers, key=lambda pid: (len(pid), pid))]


class _Samples:
    """The samples of an exposition by name."""

    def __init__(self, exposition: Mapping[str, Any]) -> None:
        self._entries = {entry["name"]: entry["samples"] for entry in exposition["metrics"]}

    def of(self, name: str) -> Iterator[tuple[Labels, float]]:
        return ((sample["labels"], sample["value"]) for sample in self._entries.get(name, ()))

    def total(self, name: str) -> float:
        return sum(value for _, value in self.of(name))


def _read_counters(samples: _Samples) -> tuple[int, ...]:
    counts = dict.fromkeys(COUNTERS, 0.0)
    for labels, value in samples.of("http_request_duration_seconds_count"):
        if _is_traffic(labels):
            counts["requests"] += value
            counts["errors"] += value * labels["status_code"].startswith("5")
            counts["rejected"] += value * (labels["status_code"] == "429")
    for labels, value in samples.of("rate_limit_decisions_total"):
        if labels["outcome"] in counts:
            counts[labels["outcome"]] += value
    counts["hits"] = samples.total("cache_hits_total")
    counts["misses"] = samples.total("cache_misses_total")
    counts["lag_us"] = 1e6 * samples.total("event_loop_lag_seconds_sum")
    counts["lag_count"] = samples.total("event_loop_lag_seconds_count")
    return tuple(round(counts[name]) for name in COUNTERS)


def _read_durations(samples: _Samples) -> tuple[list[float], dict[str, list[float]]]:
    """Requests up to each bound, and of each route its seconds (as microseconds) before the same."""
    requests = [0.0] * (len(REQUEST_BOUNDS_MS) + 1)
    routes: dict[str, list[float]] = {}
    for labels, value in samples.of("http_request_duration_seconds_bucket"):
        if _is_traffic(labels) and labels["status_code"] != "429":
            place = _place(REQUEST_SECONDS, labels["le"])
            requests[place] += value
            routes.setdefault(_name(labels), [0.0] * (len(requests) + 1))[place + 1] += value
    for labels, value in samples.of("http_request_duration_seconds_sum"):
        if _name(labels) in routes and labels["status_code"] != "429":
            routes[_name(labels)][0] += 1e6 * value
    return requests, routes


def quantile_ms(q: float, counts: Sequence[float], bounds_ms: Sequence[float]) -> float | None:
    """The time within which a share q stayed, interpolated as Prometheus does; None if nothing was counted.

    A time beyond the last bound is answered with that bound.
    """
    rank = q * sum(counts)
    if rank <= 0:
        return None
    below, lower = 0.0, 0.0
    for count, upper in zip(counts, bounds_ms, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below, lower = below + count, upper
    return bounds_ms[-1]


def _is_traffic(labels: Labels) -> bool:
    return _NO_TRAFFIC.fullmatch(labels["path_template"]) is None


def _name(labels: Labels) -> str:
    return f"{labels['method']} {labels['path_template']}"


def _place(bounds: Sequence[float], le: str) -> int:
    return len(bounds) if le == "+Inf" else bounds.index(float(le))


def _apart(cumulative: Sequence[float]) -> tuple[int, ...]:
    """Counts between two bounds each, from counts up to each bound."""
    return tuple(round(upper - lower) for lower, upper in zip((0.0, *cumulative), cumulative, strict=False))


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

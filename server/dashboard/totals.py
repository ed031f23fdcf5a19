"""What all workers have counted since they started, in the few numbers that the dashboard is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

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

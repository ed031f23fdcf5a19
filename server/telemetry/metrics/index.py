"""The index of every metric. What is not declared here does not exist: using it is an AttributeError."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from server import __version__
from server.clock import now_text
from server.telemetry.metrics import value_files
from server.telemetry.metrics.counting import (
    FLUSH_SECONDS,
    Buffer,
    CacheTotals,
    Labelled,
    ResetPoint,
    tally_of,
)
from server.telemetry.metrics.directory import has_other_workers, multiprocess_directory
from server.telemetry.metrics.exposition import (
    RENAMED,
    Declarations,
    Exemplars,
    collect_families,
    counter_value,
    render_families,
    with_new_names,
)
from server.telemetry.metrics.process import (
    count_open_files,
    most_open_files,
    python_labels,
    read_memory,
    read_memory_limit,
)
from server.telemetry.metrics.series import Family
from server.telemetry.metrics.workers import WorkerFiles

_REDIS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
# The thresholds of the alerts (docs/performance-monitoring.md) are among the bounds: there a quantile is exact.
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0)
QUERY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0)
_REQUEST_LABELS = ("method", "path_template", "status_code")
_CACHE_COUNTERS = ("hits", "misses", "sets", "deletes", "errors")
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Every metric of the service, built once per process by the application and passed down.

    Attributes are named after the metrics, without `_total`. With several worker processes (a directory in
    PROMETHEUS_MULTIPROC_DIR) each writes to files of its own, and a scrape reads the files of all;
    without, the numbers are this process's. The counters of HTTP requests are declared in the same registry by
    `server.middleware.metrics`.
    Label values are names from the code: never a path, a user or a key.
    """

    def __init__(self) -> None:
        self.registry = Declarations()
        self._directory = multiprocess_directory()
        self._files = None if self._directory is None else WorkerFiles(self._directory)
        self._buffer = Buffer()
        if self._directory is not None:
            value_files.install()
        self._cache_reset = ResetPoint(self._directory)
        self._started = time.time()
        counter: Callable[..., Counter] = partial(Counter, registry=self.registry)
        gauge: Callable[..., Gauge] = partial(Gauge, registry=self.registry)
        histogram: Callable[..., Histogram] = partial(Histogram, registry=self.registry)

        # The cache. Each operation ends as exactly one of these five; their sum is cache_operations_total.
        self.cache_hits = counter("cache_hits_total", "Cache reads that found a value.")
        self.cache_misses = counter("cache_misses_total", "Cache reads that found nothing.")
        self.cache_sets = counter("cache_sets_total", "Values written to the cache.")
        self.cache_deletes = counter("cache_deletes_total", "Deletions and invalidations in the cache.")
        self.cache_errors = counter("cache_errors_total", "Cache operations that failed.")
        self.cache_connection_status = gauge(
            "cache_connection_status",
            "1 if every worker process is connected to Redis, else 0.",
            multiprocess_mode="livemin",
        )
        # The minimum over all workers: one that is starting must not report a lost connection before it has looked.
        self.cache_connection_status.set(1)
        self.redis_round_trip_seconds = histogram(
            "redis_round_trip_seconds",
            "Time from sending commands to Redis to their replies.",
            buckets=_REDIS_SECONDS,
        )

        # The rate limiter.
        self.rate_limit_decisions = counter(
            "rate_limit_decisions_total",
            "Rate limit decisions by policy, by outcome such as denied, and by who decided.",
            ["policy", "outcome", "source"],
        )
        self.rate_limit_near_limit = counter(
            "rate_limit_near_limit_total",
            "Charges made with more than 80 percent of the limit in use, by policy.",
            ["policy"],
        )
        self.rate_limit_cost_units = counter(
            "rate_limit_cost_units_total",
            "Units charged beyond one a request (added), and given back after the response (returned), by policy.",
            ["policy", "change"],
        )
        self.rate_limit_failures = counter(
            "rate_limit_failures_total",
            "Rate limit decisions that Redis could not make, by a short reason.",
            ["reason"],
        )
        # By worker process, because each has a connection and a breaker of its own.
        self.rate_limit_worker_decisions = gauge(
            "rate_limit_worker_decisions",
            "Rate limit decisions of each worker process since it started, by who decided.",
            ["source"],
            multiprocess_mode="liveall",
        )
        self.rate_limit_worker_alone = gauge(
            "rate_limit_worker_alone",
            "1 while a worker process decides without Redis, because its breaker is open; else 0.",
            multiprocess_mode="liveall",
        )
        self.rate_limit_worker_alone.set(0)

        # The database.
        self.database_query_duration_seconds = histogram(
            "database_query_duration_seconds",
            "Duration of database queries by name, and by the server that ran them (primary or replica).",
            ["query", "target"],
            buckets=QUERY_SECONDS,
        )
        pool = partial(gauge, labelnames=["target"], multiprocess_mode="livesum")
        self.database_pool_size = pool(
            "database_pool_size", "Open database connections of all workers, by server (primary or replica)."
        )
        self.database_pool_in_use = pool(
            "database_pool_in_use", "Database connections in use in all workers, by server."
        )
        self.database_pool_waiters = pool(
            "database_pool_waiters", "Requests that wait for a database connection, by server."
        )
        self.database_replica_lag_seconds = gauge(
            "database_replica_lag_seconds",
            "How far the replica is behind the primary, for the worker that sees it furthest behind.",
            multiprocess_mode="livemax",
        )

        # Requests. Their number and status are declared by server.middleware.metrics.
        self.http_request_duration_seconds = histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival at the application to its answer, by method, route and status.",
            _REQUEST_LABELS,
            buckets=REQUEST_SECONDS,
        )
        self.request_exemplars = Exemplars("http_request_duration_seconds", _REQUEST_LABELS, REQUEST_SECONDS)
        self.http_requests_in_flight = gauge(
            "http_requests_in_flight",
            "Requests that all workers are answering now.",
            multiprocess_mode="livesum",
        )

        # Connections.
        self.http_connections = gauge(
            "http_connections", "Open connections of clients, over all workers.", multiprocess_mode="livesum"
        )
        self.http_idle_connections_closed = counter(
            "http_idle_connections_closed_total",
            "Idle connections closed early, to make room for new ones.",
        )
        self.http_unread_response_bytes = gauge(
            "http_unread_response_bytes",
            "Memory of responses that wait for their readers, over all workers.",
            multiprocess_mode="livesum",
        )
        self.http_unread_responses_cut = counter(
            "http_unread_responses_cut_total",
            "Connections cut because their client did not read a response, by reason.",
            ["reason"],
        )
        self.http_refusals = counter(
            "http_refusals_total",
            "Requests and connections refused before the application, by reason.",
            ["reason"],
        )

        # The service itself.
        self.service_up = gauge(
            "service_up",
            "1 if the last health check of every worker process found this service, else 0.",
            ["service"],
            multiprocess_mode="livemin",
        )
        self.errors = counter("errors_total", "Errors answered to clients, by their stable code.", ["code"])
        self._errors = self.labelled(self.errors)
        self.event_loop_lag_seconds = histogram(
            "event_loop_lag_seconds",
            "How late the event loop ran a timer that was due.",
            buckets=_LAG_SECONDS,
        )
        self._declare_process(counter, gauge)

    def _declare_process(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        """The worker processes themselves."""
        self.process_start_time_seconds = gauge(
            "process_start_time_seconds",
            "When the longest-running worker process started, in seconds since 1970.",
            multiprocess_mode="livemin",
        )
        self.process_start_time_seconds.set(self._started)
        memory = partial(
            gauge, multiprocess_mode="liveall"
        )  # by worker process, because one of them may leak
        self.process_memory_rss_bytes = memory("process_memory_rss_bytes", "Resident memory.")
        self.process_memory_heap_used_bytes = memory(
            "process_memory_heap_used_bytes", "Resident private memory: Python objects, buffers and stacks."
        )
        self.process_memory_heap_total_bytes = memory(
            "process_memory_heap_total_bytes",
            "Private memory that is reserved for the heap, resident or not.",
        )
        self.process_memory_external_bytes = memory(
            "process_memory_external_bytes",
            "Memory that C code holds through malloc: drivers' buffers, TLS, large objects.",
        )
        self.process_memory_limit_bytes = gauge(
            "process_memory_limit_bytes",
            "What all processes of this container or machine may use together; 0 if unknown.",
            multiprocess_mode="livemax",
        )
        self.process_memory_limit_bytes.set(read_memory_limit())
        self.process_cpu_seconds = counter(
            "process_cpu_seconds_total", "Processor time of all workers, in user and system mode."
        )
        self.process_open_fds = gauge(
            "process_open_fds",
            "Open file descriptors, connections among them.",
            multiprocess_mode="liveall",
        )
        self.process_max_fds = gauge(
            "process_max_fds",
            "How many file descriptors each worker process may have open.",
            multiprocess_mode="livemin",
        )
        self.process_max_fds.set(most_open_files())
        # While a new release takes over, both are here.
        about = python_labels()
        gauge(
            "python_info",
            "The Python that runs the service; always 1.",
            [*about],
            multiprocess_mode="livemax",
        ).labels(**about).set(1)
        gauge(
            "mastery_build_info",
            "The version of the service; always 1.",
            ["version"],
            multiprocess_mode="livemax",
        ).labels(__version__).set(1)
        self._cpu_seconds = 0.0
        self._sampling = threading.Lock()
        self.sample_process()

    @property
    def sharing_fault(self) -> str | None:
        """Why other workers can't read this one's metrics: `full`, `missing`, `denied`, `failed`; None if they can."""
        return value_files.sharing_fault()

    def repair_files(self) -> None:
        """Put the files that the workers share back where they are missing."""
        if self._directory is not None:
            value_files.repair_files()

    def count_error(self, code: str) -> None:
        """Count an error response by its stable code."""
        self._errors(code).inc()

    def sample_process(self) -> None:
        """Refresh what this process uses: memory, processor time, open files. From any thread."""
        self.sample_memory()
        self.process_open_fds.set(count_open_files())
        with self._sampling:
            now = time.process_time()
            self.process_cpu_seconds.inc(now - self._cpu_seconds)
            self._cpu_seconds = now

    def sample_memory(self) -> None:
        """Refresh this process's memory gauges."""
        memory = read_memory()
        self.process_memory_rss_bytes.set(memory.rss_bytes)
        self.process_memory_heap_used_bytes.set(memory.heap_used_bytes)
        self.process_memory_heap_total_bytes.set(memory.heap_total_bytes)
        self.process_memory_external_bytes.set(memory.external_bytes)

    def tally(self, child: Any) -> Any:
        """The tally of one of these metrics, or of a labelled child: to count in it costs an addition."""
        return tally_of(child, self._buffer)

    def labelled(self, metric: MetricWrapperBase) -> Labelled:
        """The tallies of a metric that has labels, by their values: `labelled("GET", "/livez").inc()`."""
        return Labelled(metric, self._buffer)

    def flush(self) -> None:
        """Bring the metrics up to date with what this thread has counted; by itself that happens within 20 ms."""
        self._buffer.flush_own()

    async def settle(self) -> None:
        """Wait until everything counted up to now, by any worker, can be read. For a scrape, on the event loop."""
        self._buffer.flush()
        if self._directory is not None and has_other_workers(self._directory):
            await asyncio.sleep(2 * FLUSH_SECONDS)

    def record_cache_error(self, reason: str) -> None:
        """Remember why a cache operation, counted in `cache_errors`, failed: a short word."""
        self._cache_reset.record_error(reason)

    def cache_totals(self) -> CacheTotals:
        """The cache's numbers over all workers since the last reset."""
        return self._cache_reset.since(self._cache_counts_now())

    def reset_cache_totals(self) -> None:
        """Start the numbers of `cache_totals` from zero, for all workers; the counters only ever grow."""
        self._cache_reset.reset(self._cache_counts_now())

    def render_text(self, accept: str) -> tuple[bytes, str]:
        """The exposition of all workers, and its content type.

        Args:
            accept: the request's Accept header: OpenMetrics 1.0 where it prefers that, else the text format
                0.0.4.
        """
        return render_families(list(with_new_names(self._families())), accept, self.request_exemplars)

    def families(self) -> list[Family]:
        """The metrics of all workers under the names that are exposed, each once."""
        return [family for family in with_new_names(self._families()) if family.name not in RENAMED]

    def render_json(self, *, declared_names: bool = False) -> dict[str, Any]:
        """The same as `{metrics: [{name, type, help, samples: [{labels, value}]}], timestamp}`.

        A histogram appears as the three names that its samples have: `_bucket`, `_sum` and `_count`.

        Args:
            declared_names: for our own reading: each metric once, as it is declared here.
        """
        entries: dict[str, dict[str, Any]] = {}
        for family in self._families() if declared_names else with_new_names(self._families()):
            about = {"type": family.kind, "help": family.documentation}
            if not family.samples:
                entries[family.exposed_name] = {"name": family.exposed_name, **about, "samples": []}
            for series, value in family.samples:
                entry = entries.setdefault(series.name, {"name": series.name, **about, "samples": []})
                entry["samples"].append({"labels": dict(series.labels), "value": value})
        return {"metrics": list(entries.values()), "timestamp": now_text()}

    def _cache_counts_now(self) -> dict[str, int]:
        self.flush()
        return _cache_counts(collect_families(self.registry, self._files, kind="counter"))

    def _families(self) -> list[Family]:
        """All metrics of all workers, and those that are computed from them."""
        self.flush()
        self.sample_process()
        families = collect_families(self.registry, self._files)
        counts = _cache_counts(families)
        started = next(
            (
                value
                for family in families
                if family.name == "process_start_time_seconds"
                for _, value in family.samples
            ),
            self._started,
        )
        return [
            *families,
            Family.of_one("cache_operations", "counter", "All cache operations.", sum(counts.values())),
            Family.of_one(
                "cache_hit_rate",
                "gauge",
                "Hits in percent of all cache reads since the last reset, 0..100.",
                self._cache_reset.since(counts).hit_rate,
            ),
            Family.of_one(
                "process_uptime_seconds",
                "gauge",
                "How long the longest-running worker process has been running.",
                max(0.0, time.time() - started),
            ),
        ]


def _cache_counts(families: Iterable[Family]) -> dict[str, int]:
    return {name: int(counter_value(families, f"cache_{name}")) for name in _CACHE_COUNTERS}

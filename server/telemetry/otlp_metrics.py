"""Metrics over OTLP/HTTP, for where nothing can scrape: a platform that hides its machines behind one address.

This module needs the extra `otel`, and is imported only where metrics are exported. They are the ones of
GET /api/metrics, under their new names. One worker of a machine sends those of all its workers; if it ends, another one
goes on. A collector that is slow or down costs no request anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import time
from collections.abc import Iterable, Mapping
from typing import IO, Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from server.tasks import Periodic
from server.telemetry.logs.lines import instance_name
from server.telemetry.metrics.directory import multiprocess_directory
from server.telemetry.metrics.index import Metrics
from server.telemetry.metrics.series import Family, Series

_TURN_FILE: Final = "otlp-metrics.lock"
_LAST_SECONDS: Final = 2.0
_LIBRARY: Final = "opentelemetry.exporter.otlp.proto.http.metric_exporter"


class CollectorRefused(Exception):
    """The collector does not take the metrics, or is down."""


class MetricsExport(Periodic):
    """A task of every worker, of which one sends the metrics of the machine.

    The exporter itself reads the environment variables of the specification (OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT,
    _COMPRESSION, …), the resource OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.

    Args:
        metrics: what is sent.
        url: where the collector takes metrics, such as http://localhost:4318/v1/metrics.
        env: where the service runs, such as `production`.
        version: what is running there.
        interval_seconds: between two exports.
    """

    def __init__(
        self, metrics: Metrics, url: str, *, env: str, version: str, interval_seconds: float
    ) -> None:
        super().__init__("metrics-export", interval_seconds=interval_seconds, failure="metrics.export_failed")
        self._metrics = metrics
        attributes = {
            "service.name": "mastery",
            "service.version": version,
            "service.instance.id": instance_name(),
            "deployment.environment.name": env,
        }
        named = OTELResourceDetector().detect().attributes
        self._resource = Resource.create({**attributes, **named})
        self._scope = InstrumentationScope("server", version)
        self._exporter = OTLPMetricExporter(endpoint=url)
        logging.getLogger(_LIBRARY).disabled = True  # the event of this task says that it failed, once
        self._directory = multiprocess_directory()
        self._turn: IO[str] | None = None
        self._started_ns = time.time_ns()

    async def once(self) -> None:
        """Send the metrics, if it is this worker that sends.

        Raises:
            CollectorRefused: it does not take them.
        """
        if self._has_turn():
            await self._metrics.settle()
            await asyncio.to_thread(self._send)

    async def close(self) -> None:
        """Send what was counted last, for as long as a shutdown can wait for it."""
        await super().close()
        if self._turn is not None or self._directory is None:
            with contextlib.suppress(CollectorRefused, TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._send), _LAST_SECONDS)
        self._exporter.shutdown(timeout_millis=0)
        if self._turn is not None:
            self._turn.close()

    def _has_turn(self) -> bool:
        """Whether this worker sends: the first one that locks the file, until it ends."""
        if self._directory is None or self._turn is not None:
            return True
        file = (self._directory / _TURN_FILE).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._turn = file
        self._started_ns = _first_start(file, self._started_ns)
        return True

    def _send(self) -> None:
        now = time.time_ns()
        metrics = [
            converted
            for family in self._metrics.families()
            if (converted := as_otlp(family, self._started_ns, now)) is not None
        ]
        scope = ScopeMetrics(self._scope, metrics, "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        if self._exporter.export(data) is not MetricExportResult.SUCCESS:
            raise CollectorRefused


def as_otlp(family: Family, started_ns: int, now_ns: int) -> Metric | None:
    """A metric in the form of OpenTelemetry; its sums are those since the start. None for one without values.

    Args:
        family: the metric.
        started_ns: when counting began, in nanoseconds since 1970.
        now_ns: when it was read.
    """
    if not family.samples:
        return None
    cumulative = AggregationTemporality.CUMULATIVE
    data: Sum | Gauge | Histogram
    if family.kind == "histogram":
        data = Histogram(_histograms(family.samples, started_ns, now_ns), cumulative)
    else:
        points = [
            NumberDataPoint(dict(series.labels), started_ns, now_ns, value)
            for series, value in family.samples
        ]
        data = Sum(points, cumulative, is_monotonic=True) if family.kind == "counter" else Gauge(points)
    return Metric(family.name, family.documentation, None, data)


def _histograms(
    samples: Iterable[tuple[Series, float]], started_ns: int, now_ns: int
) -> list[HistogramDataPoint]:
    """A point for each label set: Prometheus's buckets contain the smaller ones, OpenTelemetry's do not."""
    found: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for series, value in samples:
        labels = {name: text for name, text in series.labels.items() if name != "le"}
        key = series.labels["le"] if "le" in series.labels else series.name.rpartition("_")[2]
        found.setdefault(tuple(sorted(labels.items())), {})[key] = value
    return [_point(dict(labels), values, started_ns, now_ns) for labels, values in found.items()]


def _point(
    labels: Mapping[str, str], values: dict[str, float], started_ns: int, now_ns: int
) -> HistogramDataPoint:
    total, count = values.pop("sum"), values.pop("count")
    bounds = sorted((float(bound), seen) for bound, seen in values.items())
    counts = [
        seen - before for (_, seen), before in zip(bounds, [0.0, *(seen for _, seen in bounds)], strict=False)
    ]
    return HistogramDataPoint(
        attributes=dict(labels),
        start_time_unix_nano=started_ns,
        time_unix_nano=now_ns,
        count=round(count),
        sum=total,
        bucket_counts=[round(number) for number in counts],
        explicit_bounds=[bound for bound, _ in bounds[:-1]],  # the last one is infinite
        min=float("inf"),
        max=float("-inf"),
    )


def _first_start(file: IO[str], now_ns: int) -> int:
    """When the first worker of this machine began to send: what is counted goes on after its end."""
    file.seek(0)
    text = file.read()
    if text.isdecimal():
        return int(text)
    file.write(str(now_ns))
    file.flush()
    return now_ns

"""Collects the metrics of all worker processes and writes them in the formats that scrapers ask for.

In OpenMetrics, each bucket of a histogram can have an exemplar: the trace of one request that fell into it.

The names under which metrics are exposed are our own with `mastery_` before them. `cache_…` and `process_…` are
promised to clients as they are; `http_…` and `python_…` are everybody's. The others had no prefix up to version 0.1.
They keep that name beside the new one in 0.2, so that queries can be moved; then the index declares the new names.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server.telemetry.context import current_request
from server.telemetry.metrics.series import Family, Series
from server.telemetry.metrics.workers import WorkerFiles

NAMESPACE: Final = "mastery_"
# Families, so counters without `_total`.
RENAMED: Final = frozenset({
    "database_pool_in_use", "database_pool_size", "database_pool_waiters", "database_query_duration_seconds",
    "database_replica_lag_seconds",
    "errors", "event_loop_lag_seconds", "rate_limit_cost_units", "rate_limit_decisions", "rate_limit_failures",
    "rate_limit_near_limit", "rate_limit_worker_alone", "rate_limit_worker_decisions", "redis_round_trip_seconds",
    "service_up",
})  # fmt: skip
_SAMPLED = 0x01  # W3C Trace Context, section 3.2.2.5.1


def with_new_names(families: Iterable[Family]) -> Iterator[Family]:
    """The families as they are exposed: each renamed one under its new name, and then under its old one."""
    for family in families:
        if family.name not in RENAMED:
            yield family
            continue
        samples = [
            (Series(f"{NAMESPACE}{series.name}", series.labels, f"{NAMESPACE}{series.text}"), value)
            for series, value in family.samples
        ]
        new = Family(f"{NAMESPACE}{family.name}", family.kind, family.documentation, samples)
        yield new
        deprecated = f"Deprecated, use {new.exposed_name}. {family.documentation}"
        yield Family(family.name, family.kind, deprecated, family.samples)


class Exemplars:
    """The latest sampled request of this process in each bucket; a scrape shows those of the worker that answers.

    An exemplar stands beside a number without being a part of it, so the numbers may be those of all workers.

    Args:
        family: the histogram's name.
        labels: its labels' names, in the order of their values.
        bounds: its buckets' upper bounds.
    """

    def __init__(self, family: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.family = family
        self._labels = tuple(labels)
        self._bounds = bounds
        self._les = [*(str(floatToGoString(bound)) for bound in bounds), "+Inf"]  # type: ignore[no-untyped-call]
        self._texts: dict[tuple[str, ...], str] = {}

    def note(self, labels: Sequence[object], value: float) -> None:
        """Remember the request at hand, which was counted with these labels and this value, if it is sampled."""
        request = current_request.get()
        if request is None or request.trace is None or not request.trace.flags & _SAMPLED:
            return
        le = self._les[bisect_left(self._bounds, value)]
        text = f' # {{trace_id="{request.trace.trace_id}"}} {value:.6f} {time.time():.3f}'
        self._texts[*map(str, labels), le] = text

    def of(self, series: Series) -> str:
        """The exemplar behind the value of one of the family's series in the OpenMetrics format, or nothing."""
        labels = series.labels
        if "le" not in labels:
            return ""
        return self._texts.get((*(labels[name] for name in self._labels), labels["le"]), "")


class Declarations(CollectorRegistry):
    """A registry that lists what is declared in it, without collecting every metric's values."""

    def __init__(self) -> None:
        super().__init__()
        self.families: list[Metric] = []

    def register(self, collector: Collector) -> None:
        """Declare a metric; its name must be new."""
        super().register(collector)
        if isinstance(collector, MetricWrapperBase):
            self.families.extend(collector.describe())


def collect_families(registry: Declarations, files: WorkerFiles | None, *, kind: str = "*") -> list[Family]:
    """The metrics of all workers by name; of this process alone without files.

    Args:
        registry: where the metrics are declared; one that has no value yet appears without samples.
        files: what the workers have written.
        kind: `counter`, `gauge` or `histogram` to read only those.
    """
    if files is None:
        return [_family_of(metric) for metric in registry.collect()]
    values = files.values(kind)
    return [
        Family(metric.name, metric.type, metric.documentation, values.get(metric.name, []))
        for metric in registry.families
    ]


def counter_value(families: Iterable[Family], name: str) -> float:
    """The sum over all labels of a counter, by its name without `_total`."""
    return sum(value for family in families if family.name == name for _, value in family.samples)


def render_families(
    families: Sequence[Family], accept: str, exemplars: Exemplars | None = None
) -> tuple[bytes, str]:
    """The exposition and its content type: OpenMetrics 1.0 with exemplars if Accept prefers it, else text 0.0.4."""
    openmetrics = _prefers_openmetrics(accept)
    lines = []
    for family in families:
        name = family.name if openmetrics else family.exposed_name
        description = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        if openmetrics:
            description = description.replace('"', r"\"")
        lines.append(f"# HELP {name} {description}\n# TYPE {name} {family.kind}\n")
        rows = [(series, f"{series.text} {floatToGoString(value)}") for series, value in family.samples]  # type: ignore[no-untyped-call]
        if openmetrics and exemplars is not None and family.name == exemplars.family:
            lines += [f"{row}{exemplars.of(series)}\n" for series, row in rows]
        else:
            lines += [f"{row}\n" for _, row in rows]
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode(), CONTENT_TYPE_OPENMETRICS if openmetrics else CONTENT_TYPE_PLAIN_0_0_4


def _family_of(metric: Metric) -> Family:
    # Workers come and go, so the time when a series was created in one of them means nothing.
    samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    return Family(
        metric.name,
        metric.type,
        metric.documentation,
        [(Series.of(sample.name, sample.labels), sample.value) for sample in samples],
    )


def _prefers_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics is named and nothing else is preferred (RFC 9110, section 12.5.1)."""
    wanted = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        if media_type in wanted:
            wanted[media_type] = max(wanted[media_type], _quality(parameters))
    return 0.0 < wanted["application/openmetrics-text"] >= wanted["text/plain"]


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0

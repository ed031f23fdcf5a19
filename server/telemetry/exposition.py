"""Collects the metrics of all worker processes and writes them in the formats that scrapers ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

_HEADER_BYTES = (
    8  # A worker that has just made its file has not written this much yet; one killed then never does.
)


class Declarations(CollectorRegistry):
    """A registry that knows what is declared in it without asking every metric for its values."""

    def __init__(self) -> None:
        super().__init__()
        self.families: list[Metric] = []

    def register(self, collector: Collector) -> None:
        """Declare a metric; its name must be new."""
        super().register(collector)
        if isinstance(collector, MetricWrapperBase):
            self.families.extend(collector.describe())


def collect_families(registry: Declarations, directory: Path | None, *, kind: str = "*") -> list[Metric]:
    """The metrics of all workers by name; of this process alone without a directory.

    Args:
        registry: where the metrics are declared; one that has no value yet appears without samples.
        directory: where the workers write theirs.
        kind: `counter`, `gauge` or `histogram` to read only those.
    """
    if directory is None:
        families = list(registry.collect())
    else:
        paths = [str(path) for path in sorted(directory.glob(f"{kind}_*.db")) if _is_begun(path)]
        merge = MultiProcessCollector.merge
        merged = {family.name: family for family in merge(paths)}  # type: ignore[no-untyped-call]
        families = [merged.get(family.name, family) for family in registry.families]
    for family in families:
        # When a series began is no fact about it where workers come and go; several-process mode has none
        # either.
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return families


def counter_value(families: Iterable[Metric], name: str) -> float:
    """The sum over all labels of a counter, by its name without `_total`."""
    return sum(sample.value for family in families if family.name == name for sample in family.samples)


def render_families(families: Sequence[Metric], accept: str) -> tuple[bytes, str]:
    """The exposition and its content type: OpenMetrics 1.0 if Accept prefers it, else text 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Families(families))
    if _prefers_openmetrics(accept):
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Families(Collector):
    """What is collected already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _is_begun(path: Path) -> bool:
    try:
        return path.stat().st_size >= _HEADER_BYTES
    except FileNotFoundError:
        return False


def _prefers_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics is named and nothing else is wanted more (RFC 9110, section 12.5.1)."""
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

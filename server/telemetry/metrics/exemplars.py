"""Exemplars (OpenMetrics): for each bucket of a histogram, the trace of one request that fell into it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client.utils import floatToGoString

from server.telemetry.metrics.series import Series
from server.telemetry.request_context import current_request

_SAMPLED = 0x01  # W3C Trace Context, section 3.2.2.5.1


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
        """The request at hand was counted with these labels and this value."""
        request = current_request.get()
        if request is None or request.trace is None or not request.trace.flags & _SAMPLED:
            return
        le = self._les[bisect_left(self._bounds, value)]
        text = f' # {{trace_id="{request.trace.trace_id}"}} {value:.6f} {time.time():.3f}'
        self._texts[*map(str, labels), le] = text

    def of(self, series: Series) -> str:
        """What stands behind the value of one of the family's series in the OpenMetrics format, if anything."""
        labels = series.labels
        if "le" not in labels:
            return ""
        return self._texts.get((*(labels[name] for name in self._labels), labels["le"]), "")

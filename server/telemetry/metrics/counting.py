"""Counting on the request path: an addition to a plain number, handed to its metric a few hundredths of a second later.

prometheus_client's own `inc` and `observe` check, lock and look for exemplars each time, and with several worker
processes they ask for the process id and write to a file; together that took a tenth of a request. So a tally counts
in memory, and a buffer has all of them written together: 20 ms later at most, or when this process is scraped.
That much is lost when a worker is killed; what a scrape has shown is not.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from threading import get_ident
from typing import Any, TypeAlias

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

FLUSH_SECONDS = 0.02


class Buffer:
    """The tallies of this process that have counted something which their metrics do not hold yet."""

    def __init__(self) -> None:
        self._dirty: list[Tally] = []
        self._thread: int | None = None

    def add(self, tally: Tally) -> None:
        """Write a tally that has just begun to count, soon; now where there is no event loop to do it later."""
        if not self._dirty:
            try:
                asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
            except RuntimeError:
                tally.write()
                return
            self._thread = get_ident()
        self._dirty.append(tally)

    def flush(self) -> None:
        """Write everything. Only from the thread that counts: the event loop's."""
        dirty, self._dirty = self._dirty, []
        for tally in dirty:
            tally.write()

    def flush_own(self) -> None:
        """Write everything, if this is the thread that counts."""
        if self._thread == get_ident():
            self.flush()


class CounterTally:
    """The tally of a counter. Args: child: the counter, or one of its labelled children."""

    __slots__ = ("_buffer", "_child", "_pending")

    def __init__(self, child: Counter, buffer: Buffer) -> None:
        self._child = child
        self._buffer = buffer
        self._pending = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count."""
        was_written = not self._pending
        self._pending += amount
        if was_written:
            self._buffer.add(self)

    def write(self) -> None:
        """Add what was counted to the counter."""
        pending, self._pending = self._pending, 0.0
        self._child.inc(pending)


class GaugeTally:
    """The tally of a gauge that goes up and down with what is under way."""

    __slots__ = ("_buffer", "_child", "_is_written", "_value")

    def __init__(self, child: Gauge, buffer: Buffer) -> None:
        self._child = child
        self._buffer = buffer
        self._value = 0
        self._is_written = True

    def inc(self) -> None:
        """Count one more."""
        self._value += 1
        if self._is_written:
            self._is_written = False
            self._buffer.add(self)

    def dec(self) -> None:
        """Count one less."""
        self._value -= 1
        if self._is_written:
            self._is_written = False
            self._buffer.add(self)

    def write(self) -> None:
        """Set the gauge to the present value."""
        self._is_written = True
        self._child.set(self._value)


class HistogramTally:
    """The tally of a histogram."""

    __slots__ = ("_bounds", "_buckets", "_buffer", "_child", "_count", "_sum")

    def __init__(self, child: Histogram, buffer: Buffer) -> None:
        self._child = child
        self._buffer = buffer
        # prometheus_client has no public way to add several observations at once.
        self._bounds: list[float] = child._upper_bounds  # noqa: SLF001 - see above
        self._buckets = [0] * len(self._bounds)
        self._sum = 0.0
        self._count = 0

    def observe(self, amount: float) -> None:
        """Count one observation."""
        self._count += 1
        self._sum += amount
        self._buckets[bisect_left(self._bounds, amount)] += 1
        if self._count == 1:
            self._buffer.add(self)

    def write(self) -> None:
        """Add what was observed to the histogram."""
        child: Any = self._child
        child._sum.inc(self._sum)  # noqa: SLF001 - see above
        for index, count in enumerate(self._buckets):
            if count:
                child._buckets[index].inc(count)  # noqa: SLF001 - see above
                self._buckets[index] = 0
        self._sum = 0.0
        self._count = 0


Tally: TypeAlias = CounterTally | GaugeTally | HistogramTally


def tally_of(child: Any, buffer: Buffer) -> Any:
    """The tally of a metric or of its child: a counter's, a gauge's or a histogram's.

    Raises:
        TypeError: there is no tally for its kind.
    """
    match child:
        case Counter():
            return CounterTally(child, buffer)
        case Gauge():
            return GaugeTally(child, buffer)
        case Histogram():
            return HistogramTally(child, buffer)
    raise TypeError(f"no tally for {child!r}")


class Labelled:
    """The tallies of a metric by the values of its labels; the same few are asked for with every request."""

    __slots__ = ("_buffer", "_known", "_metric")

    def __init__(self, metric: MetricWrapperBase, buffer: Buffer) -> None:
        self._metric = metric
        self._buffer = buffer
        self._known: dict[tuple[object, ...], Any] = {}

    def __call__(self, *values: object) -> Any:
        """The tally of these values, in the order of the labels."""
        tally = self._known.get(values)
        if tally is None:
            tally = self._known[values] = tally_of(self._metric.labels(*values), self._buffer)
        return tally

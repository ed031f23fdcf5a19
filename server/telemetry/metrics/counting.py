"""Counting on the request path: an addition to a plain number, handed to the metric a few hundredths of a second later.

prometheus_client's own `inc` and `observe` check, lock and look for exemplars each time, which together took a tenth of
a request. A tally is written with the buffer of `buffered_values`: it shares its delay, and its promise that nothing
which a scrape has shown is ever lost.

Metric values of several worker processes that cost an addition each, not a lock, a system call and a file write.

prometheus_client's multiprocess value asks for the process id and writes its file at every increment. Here increments
are summed in memory and written together, a few hundredths of a second later at most, or when this process is scraped.
That much is lost when a worker is killed; what a scrape has shown is not.

A metric's children by their labels, found by one look into a dictionary.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_client.metrics import MetricWrapperBase

FLUSH_SECONDS = 0.02


class Writable(Protocol):
    """What is counted here and written later."""

    def write(self) -> None:
        """Write what was counted since the last time."""


class Buffer:
    """The increments of this process that its metrics, or their files, do not hold yet."""

    def __init__(self) -> None:
        self._dirty: list[Writable] = []
        self._is_flushing = False
        self._thread: int | None = None

    def add(self, value: Writable) -> None:
        """Write a value that has just been incremented, soon; where nobody would come to do it (no event loop), now."""
        if not self._dirty and not self._is_flushing:
            try:
                asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
            except RuntimeError:
                value.write()
                return
            self._thread = get_ident()
        self._dirty.append(value)

    def flush(self) -> None:
        """Write everything. Only from the thread that increments: the event loop's."""
        self._is_flushing = True
        while self._dirty:  # a tally that is written increments values
            dirty, self._dirty = self._dirty, []
            for value in dirty:
                value.write()
        self._is_flushing = False

    def flush_own(self) -> None:
        """Write everything, if this is the thread that increments."""
        if self._thread == get_ident():
            self.flush()


def install(buffer: Buffer) -> None:
    """Make every metric value that is created from now on a buffered one."""
    written: Any = values.ValueClass
    if getattr(written, "buffered", False):
        written = written.__base__

    class BufferedValue(written):  # type: ignore[misc]
        buffered = True

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._pending = 0.0
            super().__init__(*arguments, **options)

        def inc(self, amount: float) -> None:
            was_written = not self._pending
            self._pending += amount
            if was_written:
                buffer.add(self)

        def set(self, value: float, timestamp: float | None = None) -> None:
            self._pending = 0.0
            super().set(value, timestamp)

        def get(self) -> float:
            written_value: float = super().get()
            return written_value + self._pending

        def write(self) -> None:
            pending, self._pending = self._pending, 0.0
            if pending:
                super().inc(pending)

    values.ValueClass = BufferedValue


class CounterTally:
    """A counter's child. Args: child: the counter, with its labels if it has any."""

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
        """Hand over what was counted."""
        pending, self._pending = self._pending, 0.0
        self._child.inc(pending)


class GaugeTally:
    """A gauge's child that goes up and down with what is under way."""

    __slots__ = ("_buffer", "_child", "_is_written", "_value")

    def __init__(self, child: Gauge, buffer: Buffer) -> None:
        self._child = child
        self._buffer = buffer
        self._value = 0
        self._is_written = True

    def inc(self) -> None:
        """One more."""
        self._value += 1
        if self._is_written:
            self._is_written = False
            self._buffer.add(self)

    def dec(self) -> None:
        """One less."""
        self._value -= 1
        if self._is_written:
            self._is_written = False
            self._buffer.add(self)

    def write(self) -> None:
        """Hand over the present value."""
        self._is_written = True
        self._child.set(self._value)


class HistogramTally:
    """A histogram's child."""

    __slots__ = ("_bounds", "_buckets", "_buffer", "_child", "_count", "_sum")

    def __init__(self, child: Histogram, buffer: Buffer) -> None:
        self._child = child
        self._buffer = buffer
        # prometheus_client gives no other way to add several observations at once.
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
        """Hand over what was observed."""
        child: Any = self._child
        child._sum.inc(self._sum)  # noqa: SLF001 - see above
        for index, count in enumerate(self._buckets):
            if count:
                child._buckets[index].inc(count)  # noqa: SLF001 - see above
                self._buckets[index] = 0
        self._sum = 0.0
        self._count = 0


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


class Children:
    """What `metric.labels` does, with a memory: the same few children are asked for with every request."""

    __slots__ = ("_find", "_known", "_wrap")

    def __init__(self, metric: MetricWrapperBase, wrap: Callable[[Any], Any] | None = None) -> None:
        """Args: wrap: what to remember of a child instead of itself, such as its tally."""
        self._find = metric.labels
        self._wrap = wrap
        self._known: dict[tuple[object, ...], Any] = {}

    def __call__(self, *values: object, **labels: object) -> Any:
        """The child with these labels, by position or by name."""
        key = values or tuple(labels.values())
        child = self._known.get(key)
        if child is None:
            child = self._find(*values, **labels)
            if self._wrap is not None:
                child = self._wrap(child)
            self._known[key] = child
        return child

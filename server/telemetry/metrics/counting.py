"""Counting on the request path: an addition to a plain number, handed to its metric a few hundredths of a second later.

prometheus_client's own `inc` and `observe` check, lock and look for exemplars each time, and with several worker
processes they ask for the process id and write to a file; together that took a tenth of a request. So a tally counts
in memory, and a buffer has all of them written together: 20 ms later at most, or when this process is scraped.
That much is lost when a worker is killed; what a scrape has shown is not.

The cache's numbers are counted for administrators, too: over all workers, since they were last reset to zero.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import get_ident
from typing import Any, TypeAlias

import orjson
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

FLUSH_SECONDS = 0.02
_BASELINE = "cache_reset.json"
_LAST_ERROR = "cache_last_error.json"
_ERROR_WRITE_SECONDS = 0.1  # While the cache is down each request fails: its last error is shared this often.


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

    def count(self, *values: object) -> None:
        """Count one with these values, where it is a counter."""
        (self._known.get(values) or self(*values)).inc()


@dataclass(frozen=True, slots=True)
class CacheTotals:
    """The cache's numbers since the last reset, and its last error since then."""

    hits: int
    misses: int
    sets: int
    deletes: int
    errors: int
    last_error: str | None
    last_error_time: datetime | None

    @property
    def operations(self) -> int:
        """All operations, the failed ones too."""
        return self.hits + self.misses + self.sets + self.deletes + self.errors

    @property
    def hit_rate(self) -> float:
        """Hits in percent of all reads, 0..100; 0 without reads."""
        reads = self.hits + self.misses
        return 100.0 * self.hits / reads if reads else 0.0


class ResetPoint:
    """The counters' values at the last reset, and the cache's last error.

    Args:
        directory: where the worker processes share both; None keeps them in this process.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._memory: dict[str, dict[str, Any]] = {}
        self._error_written = 0.0

    def since(self, counts: Mapping[str, int]) -> CacheTotals:
        """The difference between the counters' values now and at the last reset."""
        baseline = self._read(_BASELINE)
        error = self._read(_LAST_ERROR)
        own = self._memory.get(_LAST_ERROR, {})
        if own.get("time", 0.0) > error.get("time", 0.0):
            error = own
        seen = error.get("time", 0.0) > baseline.get("time", 0.0)
        return CacheTotals(
            **{name: max(0, count - baseline.get(name, 0)) for name, count in counts.items()},
            last_error=error["reason"] if seen else None,
            last_error_time=datetime.fromtimestamp(error["time"], UTC) if seen else None,
        )

    def reset(self, counts: Mapping[str, int]) -> None:
        """Count from the present values of the counters on.

        Raises:
            OSError: the directory can't be written to.
        """
        self._write(_BASELINE, {**counts, "time": time.time()})

    def record_error(self, reason: str) -> None:
        """Remember the cache's last error and when it was. Never raises."""
        now = time.time()
        former = self._memory.get(_LAST_ERROR, {})
        error = {"reason": reason, "time": now}
        self._memory[_LAST_ERROR] = error
        if now - self._error_written >= _ERROR_WRITE_SECONDS or former.get("reason") != reason:
            self._error_written = now
            with contextlib.suppress(OSError):
                self._write(_LAST_ERROR, error)

    def _read(self, name: str) -> dict[str, Any]:
        if self._directory is None:
            return self._memory.get(name, {})
        try:
            content: dict[str, Any] = orjson.loads((self._directory / name).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return {}
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        if self._directory is None:
            self._memory[name] = content
            return
        # Readers see the old file or the new one, never a half.
        draft = self._directory / f"{name}.{os.getpid()}"
        draft.write_bytes(orjson.dumps(content))
        draft.replace(self._directory / name)

"""Metric values of several worker processes that cost an addition each, not a lock, a system call and a file write.

prometheus_client's multiprocess value asks for the process id and writes its file at every increment. Here increments
are summed in memory and written together, a few hundredths of a second later at most, or when this process is scraped.
That much is lost when a worker is killed; what a scrape has shown is not.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import values

FLUSH_SECONDS = 0.02


class Buffer:
    """The increments of this process that its files do not hold yet."""

    def __init__(self) -> None:
        self._dirty: list[Any] = []

    def add(self, value: Any) -> bool:
        """Remember a value with increments to write; False where nobody would come to write them (no event loop)."""
        if not self._dirty:
            try:
                asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
            except RuntimeError:
                return False
        self._dirty.append(value)
        return True

    def flush(self) -> None:
        """Write everything. Only from the thread that increments: the event loop's."""
        dirty, self._dirty = self._dirty, []
        for value in dirty:
            value.write()


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
            if self._pending or buffer.add(self):
                self._pending += amount
            else:
                super().inc(amount)

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

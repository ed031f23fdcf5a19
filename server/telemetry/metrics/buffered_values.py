"""Metric values of several worker processes that cost an addition each, not a lock, a system call and a file write.

prometheus_client's multiprocess value asks for the process id and writes its file at every increment. Here increments
are summed in memory and written together, a few hundredths of a second later at most, or when this process is scraped.
That much is lost when a worker is killed; what a scrape has shown is not.
"""

from __future__ import annotations

import asyncio
from threading import get_ident
from typing import Any, Protocol

from prometheus_client import values

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

"""Measures how late the event loop is, the first sign of a worker that blocks or has too much to do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from server.telemetry.metrics.index import Metrics

log = structlog.get_logger(__name__)

_PROCESS_EVERY_TICKS = 10


class EventLoopLag:
    """A task that measures how late timers run, and refreshes the gauges that nobody pushes.

    Args:
        metrics: takes the lag, and what the process uses.
        interval_seconds: how often it looks.
        probes: called every time, on the loop; each sets gauges from what it knows, such as a pool's size.
    """

    def __init__(
        self, metrics: Metrics, *, interval_seconds: float = 0.5, probes: Sequence[Callable[[], None]] = ()
    ) -> None:
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._probes = probes
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to measure."""
        self._task = asyncio.create_task(self._run(), name="event-loop-lag")

    async def close(self) -> None:
        """Stop measuring."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        ticks = 0
        while True:
            for probe in self._probes:
                self._call(probe)
            if ticks % _PROCESS_EVERY_TICKS == 0:
                self._call(self._metrics.sample_process)
            ticks += 1
            due = loop.time() + self._interval_seconds
            await asyncio.sleep(self._interval_seconds)
            self._metrics.event_loop_lag_seconds.observe(max(0.0, loop.time() - due))

    @staticmethod
    def _call(probe: Callable[[], None]) -> None:
        try:
            probe()
        except Exception as error:  # noqa: BLE001 - a failing probe must not end the measuring
            log.warning("telemetry.probe_failed", error=error)

"""Keeps the metric of the services' health up to date, also while nobody asks for anything."""

from __future__ import annotations

import asyncio
import contextlib

from server.telemetry.health import Health
from server.telemetry.metrics.index import Metrics


class HealthWatch:
    """A task that runs the health checks regularly and sets `service_up` for each service.

    Args:
        health: the checks.
        metrics: takes the outcome.
        interval_seconds: the pause between two runs.
    """

    def __init__(self, health: Health, metrics: Metrics, *, interval_seconds: float = 5.0) -> None:
        self._health = health
        self._service_up = metrics.service_up
        self._interval_seconds = interval_seconds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; the first run is under way when this returns."""
        self._task = asyncio.create_task(self._run(), name="health-watch")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            report = await self._health.run()
            for name, service in report.services.items():
                self._service_up.labels(name).set(0 if service.status == "unhealthy" else 1)
            await asyncio.sleep(self._interval_seconds)

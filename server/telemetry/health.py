"""Whether the service can do its work: checks of the parts that it needs, and how late its event loop is.

The checks run in parallel, under one deadline: for `/api/health` when it is asked for, and regularly for the metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Literal

import structlog

from server.clock import iso_timestamp
from server.errors import error_word
from server.tasks import Periodic
from server.telemetry.metrics.index import Metrics

log = structlog.get_logger(__name__)

Check = Callable[[], Awaitable[object]]
Status = Literal["healthy", "degraded", "unhealthy"]
_PROCESS_EVERY_TICKS = 10


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """The state of one part, the milliseconds that its check took, and a short word for its failure."""

    status: Status
    response_time_ms: float
    error: str | None


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of all parts at one moment."""

    status: Status
    timestamp: datetime
    services: dict[str, ServiceHealth]
    uptime_seconds: float
    total_response_time_ms: float

    @property
    def serving(self) -> bool:
        """Whether requests can be answered: every critical part works."""
        return self.status != "unhealthy"

    def as_json(self) -> dict[str, Any]:
        """The body of `GET /api/health`; milliseconds and seconds with two decimals."""
        return {
            "status": self.status,
            "timestamp": iso_timestamp(self.timestamp),
            "services": {
                name: {
                    "status": service.status,
                    "responseTime": round(service.response_time_ms, 2),
                    "error": service.error,
                }
                for name, service in self.services.items()
            },
            "uptime": round(self.uptime_seconds, 2),
            "totalResponseTime": round(self.total_response_time_ms, 2),
        }


@dataclass(frozen=True, slots=True)
class _Registered:
    check: Check
    critical: bool
    degraded_by: frozenset[str]


class Health:
    """The registered checks. A check returns when its part works and raises when it does not.

    Requests during a run share that run, so that many probes at once cost each part one check.

    Args:
        deadline_ms: how long each check may take; all run in parallel, so a report takes no longer either.
    """

    def __init__(self, *, deadline_ms: float = 900.0) -> None:
        self._deadline_seconds = deadline_ms / 1000.0
        self._checks: dict[str, _Registered] = {}
        self._started = perf_counter()
        self._run: asyncio.Task[HealthReport] | None = None
        self._abandoned: set[asyncio.Task[ServiceHealth]] = set()

    def register(
        self, name: str, check: Check, *, critical: bool, degraded_by: frozenset[str] = frozenset()
    ) -> None:
        """Add a part.

        Args:
            name: what it is called in the report.
            check: asks it.
            critical: whether the service is unhealthy without it, or merely degraded.
            degraded_by: the words of errors with which the part still does some of its work.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._checks:
            raise ValueError(f"a health check named {name!r} is registered already")
        self._checks[name] = _Registered(check, critical, degraded_by)

    async def run(self) -> HealthReport:
        """Check all parts, or join the run under way; failures are in the report."""
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._ask_all(), name="health")
        # A caller that is cancelled must not cancel the run of the others.
        return await asyncio.shield(self._run)

    async def close(self) -> None:
        """Cancel the checks that are running."""
        tasks = [task for task in (self._run, *self._abandoned) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_all(self) -> HealthReport:
        began = perf_counter()
        tasks = {
            name: asyncio.create_task(self._ask(registered), name=f"health-{name}")
            for name, registered in self._checks.items()
        }
        try:
            # wait(), which gives up at the deadline even where a check ignores its cancellation
            if tasks:
                await asyncio.wait(tasks.values(), timeout=self._deadline_seconds)
        finally:
            for task in tasks.values():
                self._abandon(task)
        elapsed_ms = (perf_counter() - began) * 1000.0
        late = ServiceHealth(status="unhealthy", response_time_ms=elapsed_ms, error="timeout")
        services = {name: task.result() if _finished(task) else late for name, task in tasks.items()}
        return HealthReport(
            status=self._overall(services),
            timestamp=datetime.now(UTC),
            services=services,
            uptime_seconds=perf_counter() - self._started,
            total_response_time_ms=elapsed_ms,
        )

    async def _ask(self, registered: _Registered) -> ServiceHealth:
        began = perf_counter()
        status: Status = "healthy"
        error: str | None = None
        try:
            await registered.check()
        except Exception as failure:  # noqa: BLE001 - whatever a driver raises is a failure of the part
            error = error_word(failure)
            status = "degraded" if error in registered.degraded_by else "unhealthy"
        return ServiceHealth(status=status, response_time_ms=(perf_counter() - began) * 1000.0, error=error)

    def _abandon(self, task: asyncio.Task[ServiceHealth]) -> None:
        if not task.done():
            task.cancel()
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)

    def _overall(self, services: dict[str, ServiceHealth]) -> Status:
        ill = {name: service.status for name, service in services.items() if service.status != "healthy"}
        if any(status == "unhealthy" and self._checks[name].critical for name, status in ill.items()):
            return "unhealthy"
        return "degraded" if ill else "healthy"


def _finished(task: asyncio.Task[ServiceHealth]) -> bool:
    return task.done() and not task.cancelled()


class HealthWatch(Periodic):
    """Runs the health checks regularly and sets `service_up` for each service."""

    def __init__(self, health: Health, metrics: Metrics, *, interval_seconds: float = 5.0) -> None:
        super().__init__("health-watch", interval_seconds=interval_seconds)
        self._health = health
        self._service_up = metrics.service_up

    async def once(self) -> None:
        """Run the checks."""
        report = await self._health.run()
        for name, service in report.services.items():
            self._service_up.labels(name).set(0 if service.status == "unhealthy" else 1)


class EventLoopLag(Periodic):
    """Measures how late timers run, the first sign of a worker that blocks or has too much to do.

    It refreshes the gauges that nothing else sets, too.

    Args:
        metrics: takes the lag, and what the process uses.
        interval_seconds: between two measurements.
        probes: called every time, on the loop; each sets gauges from something's state, such as a pool's size.
    """

    def __init__(
        self, metrics: Metrics, *, interval_seconds: float = 0.5, probes: Sequence[Callable[[], None]] = ()
    ) -> None:
        super().__init__(
            "event-loop-lag", interval_seconds=interval_seconds, failure="telemetry.probe_failed"
        )
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._probes = probes
        self._due: float | None = None
        self._ticks = 0

    async def once(self) -> None:
        """Observe how late this call is; call all probes, even if one of them fails."""
        loop = asyncio.get_running_loop()
        if self._due is not None:
            self._metrics.event_loop_lag_seconds.observe(max(0.0, loop.time() - self._due))
        is_process_due = self._ticks % _PROCESS_EVERY_TICKS == 0
        self._ticks += 1
        failure: Exception | None = None
        for probe in (*self._probes, *([self._metrics.sample_process] if is_process_due else [])):
            try:
                probe()
            except Exception as error:  # noqa: BLE001 - raised after the other probes, for the task to log
                failure = error
        self._due = loop.time() + self._interval_seconds
        if failure is not None:
            raise failure

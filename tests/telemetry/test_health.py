"""Health reports: parallel, on time, shared, and silent about details."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from server.errors import error_word
from server.telemetry.health import Health, HealthReport, ServiceHealth


async def fine() -> None:
    """A part that works."""


async def ill() -> None:
    """A part that does not."""
    raise ConnectionRefusedError("connection to server at db.internal (10.0.0.7) as user bob refused")


async def stuck() -> None:
    """A part that never answers."""
    await asyncio.Event().wait()


def health(*, deadline_ms: float = 5000.0, **checks: tuple[Callable[[], Awaitable[None]], bool]) -> Health:
    """A registry of checks, each with whether it is critical."""
    registry = Health(deadline_ms=deadline_ms)
    for name, (check, critical) in checks.items():
        registry.register(name, check, critical=critical)
    return registry


@pytest.mark.parametrize(
    ("database", "cache", "status", "serving"),
    [
        (fine, fine, "healthy", True),
        (fine, ill, "degraded", True),
        (ill, fine, "unhealthy", False),
        (ill, ill, "unhealthy", False),
    ],
)
async def test_the_overall_status(
    database: Callable[[], Awaitable[None]], cache: Callable[[], Awaitable[None]], status: str, serving: bool
) -> None:
    """Without a critical part the service is unhealthy, without another degraded."""
    report = await health(database=(database, True), cache=(cache, False)).run()
    assert (status, serving) == (report.status, report.serving)
    assert ["healthy" if check is fine else "unhealthy" for check in (database, cache)] == [
        service.status for service in report.services.values()
    ]


@pytest.mark.parametrize(
    ("reason", "part", "status"),
    [("read_only", "degraded", "degraded"), ("refused", "unhealthy", "unhealthy")],
)
async def test_a_critical_part_that_does_some_of_its_work(reason: str, part: str, status: str) -> None:
    """It degrades the service, which goes on serving; with any other error the service is unhealthy."""

    async def fail() -> None:
        raise WithReason(reason)

    registry = Health()
    registry.register("database", fail, critical=True, degraded_by=frozenset({"read_only"}))
    report = await registry.run()
    assert (part, reason) == (report.services["database"].status, report.services["database"].error)
    assert (status, status == "degraded") == (report.status, report.serving)


async def test_a_service_without_parts_is_healthy() -> None:
    """Nothing that could fail is no failure."""
    assert "healthy" == (await Health().run()).status


async def test_checks_run_in_parallel() -> None:
    """Each waits for the other: one after the other they would never end."""
    first, second = asyncio.Event(), asyncio.Event()

    async def one() -> None:
        first.set()
        await second.wait()

    async def other() -> None:
        second.set()
        await first.wait()

    report = await health(one=(one, True), other=(other, True)).run()
    assert "healthy" == report.status


async def test_a_stuck_part_is_a_timeout() -> None:
    """A part that does not answer by the deadline says so; the others' answers count."""
    registry = health(deadline_ms=50.0, database=(fine, True), cache=(stuck, False))
    report = await registry.run()
    assert ("degraded", "timeout") == (report.status, report.services["cache"].error)
    assert "healthy" == report.services["database"].status
    assert 50.0 <= report.total_response_time_ms


async def test_a_part_that_answers_after_the_deadline_is_late() -> None:
    """The deadline is the one that was given, not more: what answers at half as much again has not answered."""

    async def late() -> None:
        await asyncio.sleep(0.075)

    # Both are timers of one loop, which runs them in their order however busy the machine is.
    report = await health(deadline_ms=50.0, database=(late, True)).run()
    assert ("unhealthy", "timeout") == (report.status, report.services["database"].error)


async def test_a_part_that_ignores_its_cancellation() -> None:
    """A check that can't be stopped does not hold up the report, and ends with the registry."""
    release = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        for _ in range(20):  # it has still something to do, for which closing has to wait
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        ended.set()

    registry = health(deadline_ms=20.0, cache=(stubborn, False))
    for _ in range(3):
        assert "timeout" == (await registry.run()).services["cache"].error
    release.set()
    async with asyncio.timeout(10):
        await registry.close()
    assert ended.is_set()
    assert 1 == len(asyncio.all_tasks())


async def test_overlapping_requests_share_a_run() -> None:
    """A crowd that asks at once costs each part one check, and the next one asks anew."""
    asked = 0

    async def count() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)

    registry = health(database=(count, True))
    reports = await asyncio.gather(*(registry.run() for _ in range(50)))
    assert 1 == asked
    assert all(report is reports[0] for report in reports)
    await registry.run()
    assert 2 == asked


async def test_one_caller_that_leaves_harms_no_other() -> None:
    """The caller who began a run goes away; who joined it gets the report."""
    release = asyncio.Event()

    async def wait() -> None:
        await release.wait()

    registry = health(database=(wait, True))
    first, second = asyncio.create_task(registry.run()), asyncio.create_task(registry.run())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    release.set()
    assert "healthy" == (await second).status
    assert first.cancelled()


async def test_closing_ends_what_is_under_way() -> None:
    """At shutdown nothing of a run is left."""
    registry = health(database=(stuck, True))
    task = asyncio.create_task(registry.run())
    await asyncio.sleep(0)
    await registry.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 1 == len(asyncio.all_tasks())


def test_a_name_is_taken_once() -> None:
    """Two parts of one name would hide each other."""
    registry = health(cache=(fine, False))
    with pytest.raises(ValueError, match="'cache'"):
        registry.register("cache", fine, critical=True)


class WithReason(Exception):
    """An error of ours, which carries its word."""

    def __init__(self, reason: object) -> None:
        super().__init__("text with a host name")
        self.reason = reason


def caused_by(cause: BaseException) -> Exception:
    """An error that another one caused."""
    error = RuntimeError("wrapped")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (WithReason("backlog"), "backlog"),
        (WithReason("read_only"), "read_only"),
        (WithReason("SELECT 1 FROM users"), "error"),
        (WithReason("lost connection to 10.0.0.7"), "error"),
        (WithReason("invalid\nstart byte"), "error"),
        (WithReason("refused\n"), "error"),
        (WithReason("a" * 32), "a" * 32),
        (WithReason("a" * 33), "error"),
        (WithReason(""), "error"),
        (WithReason(7), "error"),
        (TimeoutError(), "timeout"),
        (ConnectionRefusedError("10.0.0.7"), "refused"),
        (ConnectionResetError(), "lost"),
        (BrokenPipeError(), "lost"),
        (socket.gaierror(-2, "db.internal"), "unresolved"),
        (ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED"), "tls"),
        (OSError(113, "No route to host"), "unreachable"),
        (ValueError("anything"), "error"),
        (caused_by(TimeoutError()), "timeout"),
        (caused_by(WithReason("loading")), "loading"),
    ],
)
def test_errors_in_a_word(error: Exception, word: str) -> None:
    """A failure is a short word, its own or by its kind, and never the driver's text."""
    assert word == error_word(error)


async def test_the_body_of_the_answer() -> None:
    """The contract's shape: camel case, times with milliseconds and Z, two decimals."""
    report = HealthReport(
        status="degraded",
        timestamp=datetime(2026, 1, 2, 3, 4, 5, 678999, UTC),
        services={
            "database": ServiceHealth(status="healthy", response_time_ms=1.23456, error=None),
            "cache": ServiceHealth(status="unhealthy", response_time_ms=900.001, error="timeout"),
        },
        uptime_seconds=12.3456,
        total_response_time_ms=900.789,
    )
    expected: dict[str, Any] = {
        "status": "degraded",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "services": {
            "database": {"status": "healthy", "responseTime": 1.23, "error": None},
            "cache": {"status": "unhealthy", "responseTime": 900.0, "error": "timeout"},
        },
        "uptime": 12.35,
        "totalResponseTime": 900.79,
    }
    assert expected == orjson.loads(orjson.dumps(report.as_json()))


async def test_no_detail_of_a_failure_is_shown() -> None:
    """The report of a refused connection names neither host nor user."""
    report = await health(database=(ill, True)).run()
    text = orjson.dumps(report.as_json()).decode()
    assert "refused" == report.services["database"].error
    assert not any(detail in text for detail in ("db.internal", "10.0.0.7", "bob"))

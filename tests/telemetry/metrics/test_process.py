"""What a process knows of itself: its memory, and how late its event loop is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from server.telemetry.health import EventLoopLag
from server.telemetry.metrics import process as memory
from server.telemetry.metrics.index import Metrics
from server.telemetry.metrics.process import count_open_files, read_memory
from tests.support.waiting import eventually, wait_until
from tests.telemetry.conftest import Lines


def test_memory_is_plausible() -> None:
    """The four numbers are of the order of a Python process, and what is used is less than what is reserved."""
    now = read_memory()
    assert 5_000_000 < now.rss_bytes < 4_000_000_000
    assert 0 < now.heap_used_bytes <= now.rss_bytes
    assert now.heap_used_bytes <= now.heap_total_bytes
    assert 0 <= now.external_bytes <= now.heap_total_bytes


def test_memory_grows_with_what_is_held() -> None:
    """Fifty megabytes more are seen in each of the four."""
    before = read_memory()
    block = bytearray(b"x" * 50_000_000)
    after = read_memory()
    assert 50_000_000 == len(block)
    for name in ("rss_bytes", "heap_used_bytes", "heap_total_bytes", "external_bytes"):
        assert getattr(after, name) - getattr(before, name) > 40_000_000


def test_memory_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no /proc the resident set's peak is known, and the rest is 0."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    now = read_memory()
    assert now.rss_bytes > 5_000_000
    assert (0, 0, 0) == (now.heap_used_bytes, now.heap_total_bytes, now.external_bytes)


def lag_of(metrics: Metrics) -> tuple[float, float]:
    """How often the lag was measured, and the sum in seconds."""
    registry = metrics.registry
    count = registry.get_sample_value("event_loop_lag_seconds_count")
    total = registry.get_sample_value("event_loop_lag_seconds_sum")
    assert count is not None
    assert total is not None
    return count, total


async def wait_for_measurements(metrics: Metrics, number: int) -> None:
    """Wait until the lag has been measured that often."""
    await wait_until(lambda: lag_of(metrics)[0] >= number, f"{number} measurements")


async def test_a_blocked_loop_is_noticed() -> None:
    """What blocks the loop for a fifth of a second is seen as a lag of about that."""
    metrics = Metrics()
    lag = EventLoopLag(metrics, interval_seconds=0.01)
    await lag.start()
    await wait_for_measurements(metrics, 1)
    count, before = lag_of(metrics)
    time.sleep(0.2)  # noqa: ASYNC251 - this is the fault
    await wait_for_measurements(metrics, int(count) + 1)
    await lag.close()
    assert lag_of(metrics)[1] - before > 0.15
    assert 1 == len(asyncio.all_tasks())


async def test_probes_are_called_and_may_fail(logged: Lines) -> None:
    """A probe that fails is logged, and neither the others nor the measuring stop."""
    metrics = Metrics()

    def fail() -> None:
        raise LookupError("no pool yet")

    lag = EventLoopLag(
        metrics,
        interval_seconds=0.001,
        probes=[fail, lambda: metrics.database_pool_size.labels("primary").set(7)],
    )
    await lag.start()
    await wait_for_measurements(metrics, 2)
    await lag.close()
    assert 7.0 == metrics.registry.get_sample_value("database_pool_size", {"target": "primary"})
    assert ("telemetry.probe_failed", "LookupError") == (logged()[0]["message"], logged()[0]["error.type"])


async def test_closing_what_was_never_started() -> None:
    """Closing without starting does nothing."""
    await EventLoopLag(Metrics()).close()


async def test_what_the_process_uses_is_looked_at_again_and_again() -> None:
    """Not only at the start: a worker that opens more and more files is seen between two scrapes."""
    metrics = Metrics()

    def open_files() -> float:
        return metrics.registry.get_sample_value("process_open_fds") or 0.0

    lag = EventLoopLag(metrics, interval_seconds=0.001)
    await lag.start()
    await wait_for_measurements(metrics, 2)
    before = open_files()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.socket())
        await wait_until(lambda: open_files() >= before + 20, "they are counted")
    await lag.close()


def test_open_files_are_those_that_there_are() -> None:
    """The descriptor by which they are counted is none of them."""

    def is_open(descriptor: int) -> bool:
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            return True
        return False

    # Again where a thread of another test has just opened or closed one.
    eventually(lambda: sum(map(is_open, range(4096))) == count_open_files(), "both count the same")

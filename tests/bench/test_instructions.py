"""Counting instructions: what may run while the counter does, and where the figures are shown."""

from __future__ import annotations

import asyncio

import pytest

from bench.harness.counted import HeldTimers
from bench.harness.machine import python_build
from bench.harness.report import SECTIONS


def test_a_timer_that_is_due_while_timers_are_held_does_nothing() -> None:
    """What a process does by itself now and then is not counted; what a request waits for goes on."""
    fired: list[str] = []

    async def count() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(asyncio.shield(loop.create_future()), 0.001)

    async def hold() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HeldTimers)
        loop.are_held = True
        loop.call_later(0, fired.append, "later")
        loop.call_at(loop.time(), fired.append, "at")
        for _ in range(3):  # turns of the loop
            await loop.run_in_executor(None, str)

    with asyncio.Runner(loop_factory=HeldTimers) as runner:
        with pytest.raises(TimeoutError):
            runner.run(count())
        runner.run(hold())

    assert fired == []


def test_the_page_shows_each_kind_of_request_beside_the_yardstick() -> None:
    """The first row is bare aiohttp, and the others are divided by it."""
    document = {
        "instructions": {
            "date": "2026-01-02",
            "machine": {"python": python_build()},
            "rows": {"bare": 200_000, "200": 410_000},
        }
    }

    section = SECTIONS["instructions"](document)

    assert "| 200 | 410,000 | 2.05 |" in section
    assert python_build() in section

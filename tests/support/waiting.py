"""Waiting for what happens elsewhere, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from time import monotonic

WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.005  # of the event loop's own time
_SLOW_POLL_SECONDS = 0.02  # where each look is a request or a process


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = WAIT_SECONDS
) -> None:
    """Poll a condition until it holds, while the loop goes on; fail the test when it does not in time."""
    deadline = monotonic() + seconds
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert monotonic() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(_POLL_SECONDS)


def eventually(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """The same in a test without an event loop."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(_SLOW_POLL_SECONDS)

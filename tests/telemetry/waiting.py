"""Waiting for something to become true, instead of for some time to pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

WAIT_SECONDS = 30.0


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Poll a condition until it holds, while the loop goes on; fail when it does not in time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        if condition():
            return
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS} s"
        await asyncio.sleep(0.001)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """The same where there is no loop."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS} s"
        time.sleep(0.02)

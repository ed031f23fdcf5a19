"""Waiting for what happens elsewhere, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.005


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = WAIT_SECONDS
) -> None:
    """Poll a condition until it holds; fail the test when it does not in time."""
    deadline = monotonic() + seconds
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert monotonic() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(_POLL_SECONDS)

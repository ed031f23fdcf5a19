"""Waiting in a test without an event loop for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.02


def eventually(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Poll a condition until it holds; fail the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(_POLL_SECONDS)

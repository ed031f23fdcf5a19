"""The cache at a time of the test's own."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from server.stores.cache import cache, values


class Clock:
    """The time of day as the cache sees it; it stands still until it is put forward."""

    def __init__(self) -> None:
        self.seconds = time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the cache; Redis has its own."""
    clock = Clock()
    for module in (cache, values):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: clock.seconds))
    return clock

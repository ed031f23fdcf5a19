"""The policies under which limiters are compared, and who asks when."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

START_US = 1_790_000_000_000_000
# Requests are sent and counted by so many: one measurement.
BATCH = 500
_PRESSURE = 1.25


@dataclass(frozen=True, slots=True)
class Case:
    """A policy to compare under.

    Attributes:
        limit: units in a window.
        window: seconds.
        cost: of each request, units.
        sample: admissions in a window, over all clients.
    """

    limit: int
    window: int
    cost: int = 1
    sample: int = 25_000

    @property
    def name(self) -> str:
        """The head of its column."""
        return f"L={self.limit} / {self.window} s" + (f", cost {self.cost}" if self.cost > 1 else "")

    @property
    def clients(self) -> int:
        """How many ask: fewer where each may ask more."""
        return max(1, self.sample * self.cost // self.limit)

    @property
    def requests(self) -> int:
        """How many are made in a window, over all clients; a window is warmed up and one is measured."""
        return -(-int(_PRESSURE * self.limit / self.cost * self.clients) // BATCH) * BATCH

    def arrivals(self) -> Iterator[tuple[int, int]]:
        """(microseconds, client), at random, a quarter more than may be admitted."""
        chance = random.Random(7)
        a_second = _PRESSURE * self.limit / self.cost * self.clients / self.window
        now = START_US / 1e6
        while True:
            now += chance.expovariate(a_second)
            yield int(now * 1e6), chance.randrange(self.clients)

    def exact_share(self) -> float:
        """What an exact limiter admits of the measured requests."""
        logs: list[deque[int]] = [deque() for _ in range(self.clients)]
        admitted = 0
        for number, (now, client) in zip(range(2 * self.requests), self.arrivals(), strict=False):
            log = logs[client]
            while log and log[0] <= now - self.window * 1_000_000:
                log.popleft()
            if len(log) < self.limit // self.cost:
                log.append(now)
                admitted += number >= self.requests
        return admitted / self.requests


CASES = (Case(10, 60), Case(60, 60), Case(1000, 3600), Case(10_000, 3600), Case(1_000_000, 86_400, 50))

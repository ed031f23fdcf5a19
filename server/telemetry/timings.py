"""Where a request's time goes: wall time by part, counted once however many operations overlap."""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter
from typing import Literal

Part = Literal["db", "cache", "limit"]
CacheOutcome = Literal["HIT", "STALE", "MISS", "BYPASS"]
# A request that asked for several keys is described by the worst of its answers.
_BY_BADNESS: dict[CacheOutcome | None, int] = {None: 0, "HIT": 1, "STALE": 2, "MISS": 3, "BYPASS": 4}


class Timings:
    """The stopwatch of one request: its total, and for each part wall time and number of operations.

    Overlapping operations of one part count once, as the length of the union of their intervals: three
    parallel queries of 10 ms each are 10 ms of `db`.
    """

    __slots__ = ("_active", "_began", "_started", "cache_outcome", "counts", "seconds")

    def __init__(self) -> None:
        self._started = perf_counter()
        self._active: dict[Part, int] = {}
        self._began: dict[Part, float] = {}
        self.seconds: dict[Part, float] = {}
        self.counts: dict[Part, int] = {}
        self.cache_outcome: CacheOutcome | None = None

    def total_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return (perf_counter() - self._started) * 1000.0

    def part_ms(self, part: Part) -> float:
        """Milliseconds of wall time spent in a part so far; 0 where it did not happen."""
        return self.seconds.get(part, 0.0) * 1000.0

    def note_cache(self, outcome: CacheOutcome) -> None:
        """A cache was consulted, with this outcome."""
        if _BY_BADNESS[outcome] > _BY_BADNESS[self.cache_outcome]:
            self.cache_outcome = outcome

    def begin(self, part: Part) -> None:
        """An operation of a part starts."""
        active = self._active.get(part, 0)
        if active == 0:
            self._began[part] = perf_counter()
        self._active[part] = active + 1
        self.counts[part] = self.counts.get(part, 0) + 1

    def end(self, part: Part) -> None:
        """An operation of a part has ended, well or not."""
        active = self._active[part] - 1
        self._active[part] = active
        if active == 0:
            self.seconds[part] = self.seconds.get(part, 0.0) + perf_counter() - self._began[part]


current_timings: ContextVar[Timings | None] = ContextVar("current_timings", default=None)


class measure:  # noqa: N801 - used as a function: with measure("db"): …
    """Charge the block's wall time to a part of the current request; outside of a request, nothing happens."""

    __slots__ = ("_part", "_timings")

    def __init__(self, part: Part) -> None:
        self._part = part
        self._timings = current_timings.get()

    def __enter__(self) -> None:
        if self._timings is not None:
            self._timings.begin(self._part)

    def __exit__(self, *_failure: object) -> None:
        if self._timings is not None:
            self._timings.end(self._part)

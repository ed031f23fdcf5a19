"""Where a request's time goes: wall time by part, counted once however many operations overlap."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from time import perf_counter
from typing import Final, Literal, NamedTuple, get_args

Part = Literal["db", "cache", "limit"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
CacheOutcome = Literal["HIT", "STALE", "MISS", "BYPASS"]
# A request that asked for several keys is described by the worst of its answers.
_BY_BADNESS: dict[CacheOutcome | None, int] = {None: 0, "HIT": 1, "STALE": 2, "MISS": 3, "BYPASS": 4}
# A handler with more operations than this has a bug, and the first thousand show it.
_MOST_OPERATIONS: Final = 1000


class Operation(NamedTuple):
    """Something that a request waited for, in the seconds of `perf_counter`; it becomes a span of its trace."""

    part: Part
    name: str
    began: float
    ended: float
    error_type: str | None


class Elapsed(NamedTuple):
    """The reading of a stopwatch, with the numbers as headers and log lines write them.

    Args:
        total_ms: milliseconds since the request arrived.
        total: the same with two decimals.
        parts: the milliseconds of each part that happened, with two decimals, in the order of `PARTS`.
    """

    total_ms: float
    total: str
    parts: dict[Part, str]


# Of its fields in order, at half the cost of calling the class.
_new_elapsed: Final[Callable[[tuple[object, ...]], Elapsed]] = partial(tuple.__new__, Elapsed)


class Timings:
    """The stopwatch of one request: its total, and for each part wall time and number of operations.

    Overlapping operations of one part count once, as the length of the union of their intervals: three
    parallel queries of 10 ms each are 10 ms of `db`.

    Attributes:
        operations: each operation that had a name, in the order of their ends; None unless the request is traced.
    """

    __slots__ = ("_active", "_began", "cache_outcome", "counts", "operations", "seconds", "started")

    def __init__(self) -> None:
        self.started = perf_counter()
        self.operations: list[Operation] | None = None
        self._active: dict[Part, int] = {}
        self._began: dict[Part, float] = {}
        self.seconds: dict[Part, float] = {}
        self.counts: dict[Part, int] = {}
        self.cache_outcome: CacheOutcome | None = None

    def read(self) -> Elapsed:
        """The reading now. Each number is formatted once, however many headers and log fields it goes into."""
        total_ms = (perf_counter() - self.started) * 1000.0
        seconds = self.seconds
        parts: dict[Part, str] = {}
        for part in PARTS:
            if part in seconds:
                parts[part] = f"{seconds[part] * 1000.0:.2f}"
        return _new_elapsed((total_ms, f"{total_ms:.2f}", parts))

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

    def add(self, part: Part, name: str, began: float) -> None:
        """An operation of a part, begun at this `perf_counter`, has ended; no other of its part was under way."""
        self.seconds[part] = self.seconds.get(part, 0.0) + perf_counter() - began
        self.counts[part] = self.counts.get(part, 0) + 1
        if self.operations is not None:
            self.note(part, name, began, None)

    def note(self, part: Part, name: str, began: float, error: type[BaseException] | None) -> None:
        """A named operation has ended just now, with this error if any; kept if `operations` is a list."""
        operations = self.operations
        if operations is not None and len(operations) < _MOST_OPERATIONS:
            failure = None if error is None else error.__name__
            operations.append(Operation(part, name, began, perf_counter(), failure))


current_timings: ContextVar[Timings | None] = ContextVar("current_timings", default=None)


class measure:  # noqa: N801 - used as a function: with measure("db"): …
    """Charge the block's wall time to a part of the current request; outside of a request, nothing happens.

    Args:
        part: what it is charged to.
        name: of the operation, for the request's trace; None for a block whose operations have names of their own.
    """

    __slots__ = ("_began", "_name", "_part", "_timings")

    def __init__(self, part: Part, name: str | None = None) -> None:
        self._part: Part = part
        self._name = name
        self._began = 0.0
        self._timings = current_timings.get()

    def __enter__(self) -> None:
        timings = self._timings
        if timings is not None:
            timings.begin(self._part)
            if timings.operations is not None:
                self._began = perf_counter()

    def __exit__(self, error: type[BaseException] | None, *_details: object) -> None:
        timings = self._timings
        if timings is not None:
            timings.end(self._part)
            if timings.operations is not None and self._name is not None:
                timings.note(self._part, self._name, self._began, error)


class operation:  # noqa: N801 - used as a function, like `measure`
    """Name the block as an operation of the current request, for its trace; its time is charged to nothing."""

    __slots__ = ("_began", "_name", "_part", "_timings")

    def __init__(self, part: Part, name: str) -> None:
        timings = current_timings.get()
        self._timings = None if timings is None or timings.operations is None else timings
        self._part: Part = part
        self._name = name
        self._began = 0.0

    def __enter__(self) -> None:
        if self._timings is not None:
            self._began = perf_counter()

    def __exit__(self, error: type[BaseException] | None, *_details: object) -> None:
        if self._timings is not None:
            self._timings.note(self._part, self._name, self._began, error)

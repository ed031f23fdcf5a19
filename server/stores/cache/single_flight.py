"""Single flight: callers that miss the same version of a key share one load of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Load = Callable[[], Awaitable[Any]]
# Runs a loader and stores its value: takes the key, the version that was seen (None: Redis can't be asked), the loader.
Run = Callable[[str, bytes | None, Load], Awaitable[Any]]


class SingleFlight:
    """Loads under way, by key and by the version of it that was seen; callers that saw the same share one."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[tuple[str, bytes | None], _Flight] = {}

    def __len__(self) -> int:
        return len(self._known)

    async def close(self) -> None:
        """Cancel all loads."""
        tasks = [flight.task for flight in self._known.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def refresh(self, key: str, seen: bytes, load: Load) -> None:
        """Load a key anew in the background, for the next reader; a failure is left for the next load to raise."""
        if (key, seen) not in self._known:
            self._start(key, seen, load)

    async def join(self, key: str, seen: bytes | None, load: Load) -> Any:
        """Run a loader, or share the run of another caller that saw the same version of the key.

        If Redis could not be asked (`seen` is None), a run that has begun may predate another process's write. Then
        the next run is shared instead.
        """
        flight = self._known.get((key, seen))
        if flight is None or (seen is None and flight.has_begun):
            flight = self._start(key, seen, load, before=flight)
        return await asyncio.shield(flight.task)

    def _start(self, key: str, seen: bytes | None, load: Load, before: _Flight | None = None) -> _Flight:
        flight = _Flight(before)
        flight.task = asyncio.ensure_future(self._run_in_turn(flight, key, seen, load))
        self._known[key, seen] = flight
        flight.task.add_done_callback(lambda _: self._end((key, seen), flight))
        return flight

    async def _run_in_turn(self, flight: _Flight, key: str, seen: bytes | None, load: Load) -> Any:
        if flight.before is not None:
            await asyncio.wait([flight.before.task])
            flight.before = None
        flight.has_begun = True
        return await self._run(key, seen, load)

    def _end(self, place: tuple[str, bytes | None], flight: _Flight) -> None:
        if self._known.get(place) is flight:
            del self._known[place]
        if not flight.task.cancelled():
            flight.task.exception()  # its callers may have been cancelled, and retrieve no exception


class _Flight:
    """One run of a loader that several callers share; it begins when the one before it has ended."""

    __slots__ = ("before", "has_begun", "task")

    task: asyncio.Task[Any]

    def __init__(self, before: _Flight | None) -> None:
        self.before = before
        self.has_begun = False

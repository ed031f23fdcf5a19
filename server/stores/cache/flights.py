"""Loads that several callers share: one run for all who saw the same version of a key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

Load = Callable[[], Awaitable[Any]]
# Runs a loader and stores its value: takes the key, the version that was seen (None: Redis can't be asked), the loader.
Run = Callable[[str, bytes | None, Load], Awaitable[Any]]


class Flights:
    """The runs under way, by key and by the version of it that was seen."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[tuple[str, bytes | None], _Flight] = {}

    def __len__(self) -> int:
        return len(self._known)

    async def close(self) -> None:
        """End all of them."""
        tasks = [flight.task for flight in self._known.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self, keys: Collection[str]) -> None:
        """Whoever comes from now on must not get what was loaded before: a write of these keys is known."""
        for place in [place for place in self._known if place[0] in keys]:
            del self._known[place]

    def refresh(self, key: str, seen: bytes, load: Load) -> None:
        """Load a key anew in the background, for the next reader; a failure is the business of who needs the value."""
        if (key, seen) not in self._known:
            self._start(key, seen, load)

    async def join(self, key: str, seen: bytes | None, load: Load) -> Any:
        """Run a loader, or share the run of another caller who saw the same version of the key.

        Who could not ask Redis (`seen` is None) does not know whether a run that is under way began before the
        last write of another process: it shares the next one.
        """
        flight = self._known.get((key, seen))
        if flight is None or (seen is None and flight.has_begun):
            flight = self._start(key, seen, load, before=flight)
        return await asyncio.shield(flight.task)

    def _start(self, key: str, seen: bytes | None, load: Load, before: _Flight | None = None) -> _Flight:
        flight = _Flight(before)
        flight.task = asyncio.ensure_future(self._fly(flight, key, seen, load))
        self._known[key, seen] = flight
        flight.task.add_done_callback(lambda _: self._land((key, seen), flight))
        return flight

    async def _fly(self, flight: _Flight, key: str, seen: bytes | None, load: Load) -> Any:
        if flight.before is not None:
            await asyncio.wait([flight.before.task])
            flight.before = None
        flight.has_begun = True
        return await self._run(key, seen, load)

    def _land(self, place: tuple[str, bytes | None], flight: _Flight) -> None:
        if self._known.get(place) is flight:
            del self._known[place]
        if not flight.task.cancelled():
            flight.task.exception()  # a caller that was cancelled meanwhile does not ask for it any more


class _Flight:
    """One run of a loader, which several callers wait for; it begins when the one before it has ended."""

    __slots__ = ("before", "has_begun", "task")

    task: asyncio.Task[Any]

    def __init__(self, before: _Flight | None) -> None:
        self.before = before
        self.has_begun = False

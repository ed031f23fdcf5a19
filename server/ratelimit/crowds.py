"""Coalesces concurrent decisions about one client: asks Redis only for as many as could be admitted."""

from __future__ import annotations

import asyncio
from collections import deque

# So many of a client's decisions may be in flight before anything is known about it.
FIRST = 8


class _Crowd:
    __slots__ = ("in_flight", "room", "waiting")

    def __init__(self) -> None:
        self.in_flight = 1
        self.room = FIRST
        self.waiting: deque[asyncio.Future[bool]] | None = None


class Crowds:
    """Lets decisions about one client through as far as it is known to have room, and holds the others.

    A client that is refused is refused from memory from then on: its flood is over after the first few. One that
    has room loses a round trip at most. Nothing is timed here: each decision in flight ends by its own deadline,
    and those that wait go on when it does.
    """

    def __init__(self) -> None:
        self._crowds: dict[bytes, _Crowd] = {}

    def enter(self, key: bytes) -> bool:
        """Whether the turn has come already; else wait for it. After a turn, `leave` must be called."""
        crowd = self._crowds.get(key)
        if crowd is None:
            self._crowds[key] = _Crowd()
            return True
        if crowd.in_flight < crowd.room:
            crowd.in_flight += 1
            return True
        return False

    async def wait(self, key: bytes) -> bool:
        """Wait for the turn that `enter` has not given; after it, too, `leave` must be called.

        Returns:
            False instead of a turn if Redis did not answer those before: it need not be asked again.
        """
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        crowd = self._crowds[key]
        if crowd.waiting is None:
            crowd.waiting = deque()
        crowd.waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn came at the same moment
                if turn.result():
                    self.leave(key)
            elif turn in crowd.waiting:  # else `leave` has met it, cancelled, and passed it over
                crowd.waiting.remove(turn)
            raise

    def leave(
        self, key: bytes, *, room: int | None = None, refused: bool = False, failed: bool = False
    ) -> None:
        """A decision is made.

        Args:
            key: as for `enter`.
            room: how many more of its kind could be admitted, if that is known.
            refused: all those that wait will be refused from memory.
            failed: Redis did not answer it; those that wait are decided without it, too.
        """
        crowd = self._crowds[key]
        crowd.in_flight -= 1
        if room is not None:
            crowd.room = max(FIRST, room)
        waiting = crowd.waiting
        while waiting and (refused or failed or crowd.in_flight < crowd.room):
            turn = waiting.popleft()
            if not turn.done():
                crowd.in_flight += not failed
                turn.set_result(not failed)
        if not crowd.in_flight and not waiting:
            del self._crowds[key]

"""Coalesces concurrent decisions about one client: Redis is asked only for as many as could be admitted."""

from __future__ import annotations

import asyncio
from collections import deque

# So many of a client's decisions may be in flight before anything is known about it.
FIRST_IN_FLIGHT = 8


class _Queue:
    """The decisions about one client."""

    __slots__ = ("in_flight", "room", "waiting")

    def __init__(self) -> None:
        self.in_flight = 1
        self.room = FIRST_IN_FLIGHT
        self.waiting: deque[asyncio.Future[bool]] | None = None


class Coalescer:
    """Coalesces concurrent decisions about one client: sends on as many as could be admitted, and holds the others.

    After a refusal the client is refused from memory, so a flood is over after the first few. A client with room loses
    a round trip at most. Nothing is timed here: each decision in flight ends by its own deadline, and then those that
    wait go on.
    """

    def __init__(self) -> None:
        self._queues: dict[bytes, _Queue] = {}

    def enter(self, key: bytes) -> bool:
        """Return whether the decision may go on at once; else `wait`. After its turn, `leave` must be called."""
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = _Queue()
            return True
        if queue.in_flight < queue.room:
            queue.in_flight += 1
            return True
        return False

    async def wait(self, key: bytes) -> bool:
        """Wait for the turn that `enter` has not given; after the turn, `leave` must be called.

        Returns:
            False instead of a turn if Redis did not answer the decisions before: it need not be asked again.
        """
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queue = self._queues[key]
        if queue.waiting is None:
            queue.waiting = deque()
        queue.waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn came at the same moment
                if turn.result():
                    self.leave(key)
            elif turn in queue.waiting:  # else `leave` has met it, cancelled, and passed it over
                queue.waiting.remove(turn)
            raise

    def leave_alone(self, key: bytes) -> bool:
        """End a turn beside which none is under way or waited for; False if there is one: `leave` then."""
        queue = self._queues[key]
        if queue.in_flight > 1 or queue.waiting:
            return False
        del self._queues[key]
        return True

    def leave(
        self, key: bytes, *, room: int | None = None, refused: bool = False, failed: bool = False
    ) -> None:
        """End a turn: the decision is made.

        Args:
            key: as for `enter`.
            room: how many more of its kind could be admitted, if that is known.
            refused: all that wait will be refused from memory.
            failed: Redis did not answer; all that wait are decided without it, too.
        """
        queue = self._queues[key]
        queue.in_flight -= 1
        if room is not None:
            queue.room = max(FIRST_IN_FLIGHT, room)
        waiting = queue.waiting
        while waiting and (refused or failed or queue.in_flight < queue.room):
            turn = waiting.popleft()
            if not turn.done():
                queue.in_flight += not failed
                turn.set_result(not failed)
        if not queue.in_flight and not waiting:
            del self._queues[key]

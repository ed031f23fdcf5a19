"""Turns: of what one user sends at once, only a little is under way; the rest waits where it holds nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from server.errors import ServiceUnavailable


class TooManyAtOnce(ServiceUnavailable):
    """Too many of your writes are under way; try again shortly."""

    code = "too_many_at_once"


class Turns:
    """Lets at most so many of a user's writes go on at once, in the order in which they came.

    The writes of a user happen one after another: each begins with the lock of the user's row. Whatever waits for that
    row holds a connection, so what could only wait there waits here.

    Args:
        at_once: how many of a user may go on.
        wait_seconds: how long the others wait.
    """

    def __init__(self, *, at_once: int, wait_seconds: float) -> None:
        self._at_once = at_once
        self._wait_seconds = wait_seconds
        self._under_way: dict[UUID, int] = {}
        self._lines: dict[UUID, deque[asyncio.Future[None]]] = {}

    async def take(self, user_id: UUID) -> None:
        """Wait for a turn; `give_back` ends it.

        Raises:
            TooManyAtOnce: it did not come in time.
        """
        count = self._under_way.get(user_id, 0)
        if count < self._at_once:
            self._under_way[user_id] = count + 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(user_id, deque()).append(turn)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came together with the end of the waiting
                self.give_back(user_id)
            if isinstance(error, TimeoutError):
                raise TooManyAtOnce from None
            raise

    def give_back(self, user_id: UUID) -> None:
        """End a turn: the next in line gets it."""
        line = self._lines.get(user_id)
        while line:
            turn = line.popleft()
            if not line:
                del self._lines[user_id]
            if not turn.done():
                turn.set_result(None)
                return
        count = self._under_way[user_id] - 1
        if count:
            self._under_way[user_id] = count
        else:
            del self._under_way[user_id]

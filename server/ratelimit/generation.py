"""The generation of the refusals: it advances when something has made room that no process can know of."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from server.ratelimit.keys import GENERATION_KEY
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable

LOOK_EVERY_SECONDS = 1.0
KEPT_MS = 24 * 3600 * 1000


class Generation:
    """A word in Redis that changes with every reset and refund.

    A process that refuses from memory looks at it once a second, so a reset by another process is in force
    everywhere a second later.

    Args:
        link: to Redis.
        on_change: called when it has changed: forget the refusals.
    """

    def __init__(self, link: RedisLink, on_change: Callable[[], None]) -> None:
        self._link = link
        self._on_change = on_change
        self._known: bytes | None = None
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None

    def look_again(self, now: float) -> None:
        """Look, in the background, unless that was done less than a second ago (monotonic seconds)."""
        if now - self._looked_at >= LOOK_EVERY_SECONDS and (self._look is None or self._look.done()):
            self._looked_at = now
            self._look = asyncio.get_running_loop().create_task(self._compare())

    async def advance(self) -> None:
        """Something has made room: refusals end, here at once and in the other processes within a second.

        Raises:
            RedisUnavailable: the other processes may not learn of it.
        """
        self._on_change()
        await self._link.execute("SET", GENERATION_KEY, secrets.token_hex(8), "PX", KEPT_MS)

    async def close(self) -> None:
        """Stop looking."""
        if self._look is not None and not self._look.done():
            self._look.cancel()
            await asyncio.wait([self._look])

    async def _compare(self) -> None:
        try:
            word: bytes | None = await self._link.execute("GET", GENERATION_KEY)
        except (RedisUnavailable, RedisReplyError):
            return  # refusals are kept until the instant that Redis named
        if word != self._known:
            self._known = word
            self._on_change()

"""Several keys of the cache asked for in one command, and the short way to an answer that has not changed."""

from __future__ import annotations

import asyncio
import time
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from server.stores.cache.values import HEAD_BYTES, fresh_until_ms, head_of, is_value
from server.stores.redis.commands import PreparedCommand
from server.stores.redis.errors import RedisReplyError, RedisUnavailable
from server.telemetry.timings import current_timings

if TYPE_CHECKING:
    from server.stores.cache.cache import Cache, Lookup


class CacheKeys:
    """Keys that are asked for together, again and again. Args: names: in the order of the answers."""

    __slots__ = ("command", "names")

    def __init__(self, *names: str) -> None:
        self.names = names
        self.command = PreparedCommand("MGET", *names)


class Seen(NamedTuple):
    """The versions of several values, and until when all of them are fresh, in milliseconds since 1970."""

    heads: tuple[bytes, ...]
    fresh_until_ms: int


class Lookups:
    """Keys that Redis has been asked for, on their way.

    Args:
        cache: whose they are.
        keys: what was asked for.
        reply: of the one command; None if the keys are asked for one by one.
        each: their lookups, if the keys are asked for one by one.
    """

    __slots__ = ("_began", "_cache", "_each", "_keys", "_reply")

    def __init__(
        self,
        cache: Cache,
        keys: CacheKeys,
        reply: asyncio.Future[Any] | None,
        each: list[Lookup],
    ) -> None:
        self._cache = cache
        self._keys = keys
        self._reply = reply
        self._each = each
        self._began = perf_counter()

    def each(self) -> list[Lookup]:
        """A lookup for each key."""
        if self._reply is None:
            return self._each
        return [
            self._cache.lookup_part(name, self._reply, index) for index, name in enumerate(self._keys.names)
        ]

    def are_still(self, seen: Seen) -> bool:
        """Whether Redis has answered with these versions already, all fresh; they then count as hits.

        What was made of them is current: whoever remembers it need not decode, or wait for, anything. False says
        nothing: ask the lookups.
        """
        stored = self._answer()
        if stored is None:
            return False
        heads = seen.heads
        for index, value in enumerate(stored):
            if value is None or value[:HEAD_BYTES] != heads[index]:
                return False
        cache = self._cache
        if time.time() * 1000 >= seen.fresh_until_ms or not cache.knows(self._keys.names):
            return False
        cache.note_hits(len(heads))
        timings = current_timings.get()
        if timings is not None:
            timings.add("cache", "cache.read", self._began)
            if timings.cache_outcome is None:
                timings.cache_outcome = "HIT"
        return True

    def seen(self) -> Seen | None:
        """The versions that Redis has answered with; None unless there is a value for every key."""
        stored = [value for value in self._answer() or () if value is not None and is_value(value)]
        if len(stored) < len(self._keys.names):
            return None
        return Seen(tuple(map(head_of, stored)), min(map(fresh_until_ms, stored)))

    def _answer(self) -> list[bytes | None] | None:
        reply = self._reply
        if reply is None or not reply.done():
            return None
        try:
            answer: list[bytes | None] = reply.result()
        except (RedisUnavailable, RedisReplyError, asyncio.CancelledError):
            return None
        return answer

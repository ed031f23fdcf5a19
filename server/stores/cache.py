"""Cache-aside over Redis: read, else load once and fill; a writer's invalidation always wins over a slow reader.

A stored value is one marker byte, eight random bytes, and JSON. The random bytes make each version of a key unique,
so that `fill_cache.lua` can tell whether anything happened between a reader's look and its fill.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson
import structlog

from server.stores.redis_link import RedisLink, RedisReplyError, RedisUnavailable
from server.stores.scripts import load_script
from server.telemetry.metrics import Metrics
from server.telemetry.timings import CacheOutcome, current_timings, measure

log = structlog.get_logger(__name__)

Load = Callable[[], Awaitable[Any]]

_VALUE, _TOMBSTONE = b"V", b"T"
_NONCE_BYTES = 8
_HEAD_BYTES = 1 + _NONCE_BYTES
# Longer than any load may take: a reader that looked before the invalidation must still find the tombstone.
_TOMBSTONE_MS = 60_000
# Keys whose invalidation Redis has not seen yet; past this many, their time to live has to do.
_MOST_PENDING = 10_000


class Cache:
    """JSON values by key, each with a time to live; never an error for the caller because Redis is away."""

    def __init__(self, link: RedisLink, metrics: Metrics, *, ttl_seconds: int, deadline_ms: float) -> None:
        """Args: ttl_seconds: of each value; deadline_ms: after which a write to Redis counts as failed."""
        self._link = link
        self._metrics = metrics
        self._ttl_ms = ttl_seconds * 1000
        self._deadline_ms = deadline_ms
        self._fill = load_script("fill_cache")
        self._flights: dict[tuple[str, bytes | None], asyncio.Task[Any]] = {}
        self._pending: set[str] = set()

    def lookup(self, key: str) -> Lookup:
        """Ask for a key now, together with whatever else this tick of the loop asks for; await its value later."""
        return Lookup(self, key)

    async def invalidate(self, keys: Iterable[str]) -> None:
        """Make keys unusable for everybody, after the write that changed them has been committed.

        While Redis is away the keys are remembered; this process neither reads nor fills them until Redis knows.
        """
        keys = list(keys)
        self._metrics.cache_deletes.inc(len(keys))
        self._pending.update(keys[: max(0, _MOST_PENDING - len(self._pending))])
        for flight in [flight for flight in self._flights if flight[0] in keys]:
            del self._flights[flight]  # whoever comes now must not get what was loaded before the write
        await self._flush_pending()

    async def _flush_pending(self) -> None:
        keys = list(self._pending)
        with measure("cache"):
            outcomes = await asyncio.gather(
                *(
                    self._link.execute(
                        "SET", key, _TOMBSTONE + secrets.token_bytes(_NONCE_BYTES), "PX", _TOMBSTONE_MS,
                        deadline_ms=self._deadline_ms,
                    )
                    for key in keys
                ),
                return_exceptions=True,
            )  # fmt: skip
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome, RedisUnavailable | RedisReplyError):
                self.note_error(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                self._pending.discard(key)

    async def settle(self, key: str) -> bool:
        """Whether this process may use a key: it may not while an invalidation of it has not reached Redis."""
        if key in self._pending:
            await self._flush_pending()
        return key not in self._pending

    def note_error(self, error: RedisUnavailable | RedisReplyError) -> None:
        """Count a failed operation and keep its short reason for the operator."""
        self._metrics.cache_errors.inc()
        self._metrics.record_cache_error(error.reason if isinstance(error, RedisUnavailable) else error.code)

    async def load_once(self, key: str, seen: bytes | None, load: Load) -> Any:
        """Run a loader, or wait for the one that runs already for the same key and the same version of it."""
        flight = (key, seen)
        task = self._flights.get(flight)
        if task is None:
            task = asyncio.ensure_future(self._load_and_fill(key, seen, load))
            self._flights[flight] = task
            task.add_done_callback(lambda done: self._land(flight, done))
        return await asyncio.shield(task)

    def _land(self, flight: tuple[str, bytes | None], task: asyncio.Task[Any]) -> None:
        if self._flights.get(flight) is task:
            del self._flights[flight]
        if not task.cancelled():
            task.exception()  # a caller that was cancelled meanwhile does not ask for it any more

    async def _load_and_fill(self, key: str, seen: bytes | None, load: Load) -> Any:
        value = await load()
        if seen is not None and value is not None:
            stored = _VALUE + secrets.token_bytes(_NONCE_BYTES) + orjson.dumps(value)
            try:
                with measure("cache"):
                    filled = await self._link.run_script(
                        self._fill, [key], [seen, stored, self._ttl_ms], deadline_ms=self._deadline_ms
                    )
            except (RedisUnavailable, RedisReplyError) as error:
                self.note_error(error)
            else:
                if filled == 1:
                    self._metrics.cache_sets.inc()
        return value

    async def read(self, key: str, reply: asyncio.Future[Any]) -> bytes | None:
        """What Redis answered to a lookup: the stored bytes, empty if there are none; None if it can't be asked."""
        try:
            with measure("cache"):
                stored = await reply
            if not await self.settle(key):
                return None
        except (RedisUnavailable, RedisReplyError) as error:
            self.note_error(error)
            return None
        return stored or b""

    def send_get(self, key: str) -> asyncio.Future[Any]:
        """Put a GET among the commands of this tick."""
        reply = self._link.submit("GET", key)
        reply.add_done_callback(_retrieve)
        return reply

    def note_hit(self) -> None:
        """Count a value that was used."""
        self._metrics.cache_hits.inc()

    def note_miss(self) -> None:
        """Count a value that had to be loaded."""
        self._metrics.cache_misses.inc()


class Lookup:
    """A key that Redis has been asked for, on its way."""

    __slots__ = ("_cache", "_key", "_reply")

    def __init__(self, cache: Cache, key: str) -> None:
        self._cache = cache
        self._key = key
        self._reply = cache.send_get(key)

    async def value(self, load: Load, *, usable: Callable[[Any], bool] | None = None) -> Any:
        """The cached value, else the loaded one, which is then stored for the next reader.

        Args:
            load: reads the value from the database; its result is what JSON can hold. None is not stored.
            usable: says of a cached value whether it still fits; one that does not is loaded anew.

        Raises: what `load` raises.
        """
        cache = self._cache
        stored = await cache.read(self._key, self._reply)
        if stored is None:
            _note_outcome("BYPASS")
            return await cache.load_once(self._key, None, load)
        if stored.startswith(_VALUE):
            value = orjson.loads(memoryview(stored)[_HEAD_BYTES:])
            if usable is None or usable(value):
                cache.note_hit()
                _note_outcome("HIT")
                return value
        cache.note_miss()
        _note_outcome("MISS")
        return await cache.load_once(self._key, stored[:_HEAD_BYTES], load)


def _note_outcome(outcome: CacheOutcome) -> None:
    timings = current_timings.get()
    if timings is not None:
        timings.note_cache(outcome)


def _retrieve(reply: asyncio.Future[Any]) -> None:
    if not reply.cancelled():
        reply.exception()

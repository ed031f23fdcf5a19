"""Cache-aside over Redis: read, else load once and fill; a writer's invalidation always wins over a slow reader.

A value that is no longer fresh is kept for a while: it is answered once more while it is loaded anew in the background,
and as long as the database is away (RFC 5861). One that was invalidated is never answered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import orjson
import structlog

from server.stores.cache.decoded_values import DecodedValues
from server.stores.cache.flights import Flights, Load
from server.stores.cache.invalidation import Successor, bury
from server.stores.cache.lookups import CacheKeys, Lookups
from server.stores.cache.values import decode, encode, head_of, is_fresh, is_value, remaining_ms
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from server.stores.redis.scripts import load_script
from server.telemetry.metrics.index import Metrics
from server.telemetry.timings import CacheOutcome, current_timings, measure

log = structlog.get_logger(__name__)

# Keys whose invalidation Redis has not seen yet; past this many, their time to live has to do.
_MOST_PENDING = 10_000
# How soon after Redis is back it hears of them, and of how many at once.
_RETRY_SECONDS = 0.1
_RETRIED_AT_ONCE = 500


class Cache:
    """JSON values by key, each with a time to live; never an error for the caller because Redis is away."""

    def __init__(
        self,
        link: RedisLink,
        metrics: Metrics,
        *,
        ttl_seconds: int,
        deadline_ms: float,
        stale_seconds: int = 0,
    ) -> None:
        """Args: ttl_seconds: how long a value is fresh; stale_seconds: how long it is kept after that.

        deadline_ms: after which a write to Redis counts as failed.
        """
        self._link = link
        self._metrics = metrics
        self._hits, self._misses = metrics.tally(metrics.cache_hits), metrics.tally(metrics.cache_misses)
        self._ttl_ms = ttl_seconds * 1000
        self.stale_ms = stale_seconds * 1000
        self._kept_ms = self._ttl_ms + self.stale_ms
        self._deadline_ms = deadline_ms
        self._fill = load_script("fill_cache")
        self._decoded = DecodedValues()
        self.flights = Flights(self._load)
        self._pending: set[str] = set()
        self._retry: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """End what is under way; what Redis has not heard of then, its time to live has to end."""
        await self.flights.close()
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)

    def lookup(self, key: str) -> Lookup:
        """Ask for a key now, together with whatever else this tick of the loop asks for; await its value later."""
        return Lookup(self, key, self._link.submit("GET", key))

    def lookups(self, keys: CacheKeys) -> Lookups:
        """Ask for several keys now, in one command where they live on one server; await their values later."""
        if self._link.is_cluster:
            return Lookups(self, keys, None, [self.lookup(name) for name in keys.names])
        reply = self._link.submit_prepared(keys.command)
        return Lookups(self, keys, reply, [])

    def lookup_part(self, name: str, reply: asyncio.Future[Any], index: int) -> Lookup:
        """The lookup of one of several keys that were asked for in one command."""
        return Lookup(self, name, reply, index)

    async def invalidate(
        self, keys: Iterable[str], successors: Mapping[str, Successor] | None = None
    ) -> None:
        """Make keys unusable for everybody, after the write that changed them has been committed.

        What Redis does not hear of now, it is told as soon as it is back; until then this process neither reads
        nor fills these keys.

        Args:
            keys: what the write has changed.
            successors: new values for some of them (from `Kept.succeeded_by`), if nothing has happened there since.
        """
        stale = set(keys)
        if not stale:
            return
        self.flights.forget(stale)
        try:
            unheard = await self._entomb(stale, successors)
        except BaseException:
            self._remember(stale)  # cancelled: nobody knows how far it came
            raise
        self._remember(unheard)

    async def _entomb(
        self, keys: Iterable[str], successors: Mapping[str, Successor] | None = None
    ) -> list[str]:
        """Put tombstones or successors in the place of keys: those for which that failed."""
        keys = list(keys)
        if self._pending:  # what was seen at a key that Redis has not heard of yet has no successor
            successors = {key: one for key, one in (successors or {}).items() if key not in self._pending}
        with measure("cache", "cache.invalidate"):
            burial = await bury(self._link, keys, deadline_ms=self._deadline_ms, successors=successors)
        for failure in burial.failures.values():
            self.note_error(failure)
        heard = [key for key in keys if key not in burial.failures]
        self._metrics.cache_sets.inc(len(burial.succeeded))
        self._metrics.cache_deletes.inc(len(heard) - len(burial.succeeded))
        self._pending.difference_update(heard)
        return list(burial.failures)

    def _remember(self, keys: Iterable[str]) -> None:
        room = _MOST_PENDING - len(self._pending)
        self._pending.update(islice(keys, max(0, room)))
        if self._pending and (self._retry is None or self._retry.done()):
            self._retry = asyncio.create_task(self._retry_pending(), name="cache invalidations")

    async def _retry_pending(self) -> None:
        current_timings.set(None)  # no request waits for this
        while self._pending:
            await asyncio.sleep(_RETRY_SECONDS)
            if self._link.status.connected:
                await self._entomb(islice(self._pending, _RETRIED_AT_ONCE))

    def note_error(self, error: RedisUnavailable | RedisReplyError) -> None:
        """Count a failed operation and keep its short reason for the operator."""
        self._metrics.cache_errors.inc()
        self._metrics.record_cache_error(error.reason if isinstance(error, RedisUnavailable) else error.code)

    async def _load(self, key: str, seen: bytes | None, load: Load) -> Any:
        """Run a loader and store its value, unless something has happened at the key since it was seen."""
        value = await load()
        if seen is not None and value is not None and key not in self._pending:
            stored = encode(value, fresh_ms=self._ttl_ms)
            try:
                with measure("cache", "cache.fill"):
                    filled = await self._link.run_script(
                        self._fill, [key], [seen, stored, self._kept_ms], deadline_ms=self._deadline_ms
                    )
            except (RedisUnavailable, RedisReplyError) as error:
                self.note_error(error)
            else:
                if filled == 1:
                    self._metrics.cache_sets.inc()
        return value

    async def read(self, key: str, reply: asyncio.Future[Any], index: int | None) -> bytes | None:
        """What Redis answered to a lookup: the stored bytes, empty if there are none; None if it can't be asked."""
        try:
            with measure("cache", "cache.read"):
                stored = await reply
        except (RedisUnavailable, RedisReplyError) as error:
            self.note_error(error)
            return None
        if index is not None:
            stored = stored[index]
        # Not before the reply: it may be of a Redis that has come back and does not know of the write yet.
        return None if key in self._pending else stored or b""

    def decode(self, key: str, stored: bytes) -> Any:
        """The value in what Redis holds; None if there is none, or none that can be read."""
        if not is_value(stored):
            return None
        head = head_of(stored)
        value = self._decoded.find(key, head)
        if value is None:
            try:
                value = decode(stored)
            except orjson.JSONDecodeError:
                log.warning("cache.unreadable_value", size=len(stored))
                return None
            self._decoded.remember(key, head, len(stored), value)
        return value

    def knows(self, keys: Iterable[str]) -> bool:
        """Whether Redis knows of every invalidation of these keys by this process."""
        return not self._pending or self._pending.isdisjoint(keys)

    def note_hits(self, count: int = 1) -> None:
        """Count values that were used."""
        self._hits.inc(count)

    def note_miss(self) -> None:
        """Count a value that had to be loaded."""
        self._misses.inc()


class Lookup:
    """A key that Redis has been asked for, on its way."""

    __slots__ = ("_cache", "_index", "_key", "_reply")

    def __init__(self, cache: Cache, key: str, reply: asyncio.Future[Any], index: int | None = None) -> None:
        self._cache = cache
        self._key = key
        self._reply = reply
        self._index = index

    async def value(self, load: Load, *, usable: Callable[[Any], bool] | None = None) -> Any:
        """The cached value, else the loaded one, which is then stored for the next reader.

        Args:
            load: reads the value from the database; its result is what JSON can hold. None is not stored.
            usable: says of a cached value whether it still fits; one that does not is loaded anew.

        Raises: what `load` raises.
        """
        cache = self._cache
        stored = await cache.read(self._key, self._reply, self._index)
        if stored is None:
            _note_outcome("BYPASS")
        else:
            value = cache.decode(self._key, stored)
            if value is not None and (usable is None or usable(value)):
                cache.note_hits()
                if is_fresh(stored):
                    _note_outcome("HIT")
                else:
                    _note_outcome("STALE")
                    cache.flights.refresh(self._key, head_of(stored), load)
                return value
            cache.note_miss()
            _note_outcome("MISS")
        value = await cache.flights.join(self._key, None if stored is None else head_of(stored), load)
        if value is not None and usable is not None and not usable(value):
            return await load()  # the run was another caller's, who needed another variant
        return value

    async def kept(self) -> Kept | None:
        """What the cache holds, if anything: for a writer who knows what it will be; neither counted nor loaded."""
        stored = await self._cache.read(self._key, self._reply, self._index)
        value = None if stored is None else self._cache.decode(self._key, stored)
        return None if stored is None or value is None else Kept(self._cache, stored, value)


class Kept:
    """A value as the cache holds it."""

    __slots__ = ("_cache", "_stored", "value")

    def __init__(self, cache: Cache, stored: bytes, value: Any) -> None:
        self._cache = cache
        self._stored = stored
        self.value = value

    def succeeded_by(self, value: Any) -> Successor:
        """The value that takes its place, for `Cache.invalidate`.

        It is fresh for no longer than the one that it is made of: what that lacks, because the word of a write was
        lost with its process, ends with it.
        """
        fresh_ms = remaining_ms(self._stored)
        stored = encode(value, fresh_ms=fresh_ms)
        return Successor(head_of(self._stored), stored, fresh_ms + self._cache.stale_ms)


def _note_outcome(outcome: CacheOutcome) -> None:
    timings = current_timings.get()
    if timings is not None:
        timings.note_cache(outcome)

"""Cache-aside over Redis: read, else load once and store; an invalidation always wins over a load that began before.

A value that is no longer fresh is kept for a while: it is answered while it is loaded anew in the background, and for
as long as the database is unavailable (RFC 5861). One that was invalidated is never answered again. Callers that saw
the same version of a key share one load of it (single flight). Several keys are asked for in one command, with a fast
path for unchanged versions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from time import perf_counter
from typing import Any, NamedTuple

import orjson
import structlog

from server.stores.cache.single_flight import Load, SingleFlight
from server.stores.cache.values import (
    PREFIX_BYTES,
    DecodedValues,
    Successor,
    decode,
    encode,
    fresh_until_ms,
    head_of,
    invalidate,
    is_fresh,
    is_value,
    remaining_ms,
)
from server.stores.redis.errors import RedisReplyError, RedisUnavailable
from server.stores.redis.link import RedisLink
from server.stores.redis.protocol import PreparedCommand
from server.stores.redis.scripts import load_script
from server.telemetry.metrics.index import Metrics
from server.telemetry.timings import CacheOutcome, current_timings, measure

log = structlog.get_logger(__name__)

# Keys whose invalidation Redis has not received yet; those beyond are bounded by their time to live.
_MOST_PENDING = 10_000
# How long after Redis is back they are sent, and how many at once.
_RETRY_SECONDS = 0.1
_RETRIED_AT_ONCE = 500


class CacheKeys:
    """Keys that are often asked for together. Args: names: in the order of the answers."""

    __slots__ = ("names", "prefixes", "values")

    def __init__(self, *names: str) -> None:
        self.names = names
        # The commands that ask for their values, and for no more than their versions and times.
        self.values = PreparedCommand("MGET", *names)
        self.prefixes = tuple([PreparedCommand("GETRANGE", name, 0, PREFIX_BYTES - 1) for name in names])


class Seen(NamedTuple):
    """What comes before the JSON of several values, and the time until which all are fresh, in ms since 1970."""

    prefixes: tuple[bytes, ...]
    fresh_until_ms: float


class Lookups:
    """Pending lookups of several keys.

    Where something was made of their values before, Redis is asked for their versions only: values that have not
    changed are not sent. Changed ones take another round trip.

    Args:
        cache: that they are looked up in.
        keys: what is asked for.
        seen: the versions that something was made of; None to ask for the values.
    """

    __slots__ = ("_are_prefixes", "_began", "_cache", "_in_one", "_keys", "_replies")

    def __init__(self, cache: Cache, keys: CacheKeys, seen: Seen | None) -> None:
        self._cache = cache
        self._keys = keys
        self._began = perf_counter()
        self._are_prefixes = seen is not None and time.time() * 1000 < seen.fresh_until_ms
        # One reply has all values, unless they live on several servers.
        self._in_one = not self._are_prefixes and not cache.link.is_cluster
        link = cache.link
        self._replies: list[asyncio.Future[Any]]
        if self._are_prefixes:
            self._replies = list(map(link.submit_prepared, keys.prefixes))
        elif self._in_one:
            self._replies = [link.submit_prepared(keys.values)]
        else:
            self._replies = [link.submit("GET", name) for name in keys.names]

    def each(self) -> list[Lookup]:
        """A lookup for each key."""
        cache, names, replies = self._cache, self._keys.names, self._replies
        if self._in_one:
            return [Lookup(cache, name, replies[0], index) for index, name in enumerate(names)]
        is_prefix = self._are_prefixes
        return [
            Lookup(cache, name, reply, is_prefix=is_prefix)
            for name, reply in zip(names, replies, strict=True)
        ]

    async def wait(self) -> None:
        """Wait until `are_still` is known, if no more than the versions was asked for."""
        if self._are_prefixes:
            await asyncio.wait(self._replies)

    def are_still(self, seen: Seen) -> bool:
        """Whether Redis, asked for the versions only, has answered with these; they then count as hits.

        What was made of these versions is then current. Returns False if that is not known yet (`wait`), or if
        something has changed: then inspect `each()`.
        """
        if not self._has_prefixes(seen.prefixes):
            return False
        cache = self._cache
        if not cache.none_pending(self._keys.names):
            return False
        cache.note_hits(len(seen.prefixes))
        timings = current_timings.get()
        if timings is not None:
            timings.add("cache", "cache.read", self._began)
            if timings.cache_outcome is None:
                timings.cache_outcome = "HIT"
        return True

    async def kept(self) -> list[Kept | None]:
        """What the cache holds of each key, for a writer; see `Lookup.kept`."""
        if not self._in_one:
            return [await lookup.kept() for lookup in self.each()]
        answer = await self._cache.answer_of(self._replies[0])
        stored: list[bytes | None] = [None] * len(self._keys.names) if answer is None else answer[0]
        return list(map(self._cache.keep, self._keys.names, stored))

    def seen(self) -> Seen | None:
        """The versions that Redis has answered with; None unless there is a value for every key."""
        stored = [value for value in self._answer() if value is not None and is_value(value)]
        if len(stored) < len(self._keys.names):
            return None
        prefixes = tuple([value[:PREFIX_BYTES] for value in stored])
        return Seen(prefixes, float(min(map(fresh_until_ms, prefixes))))

    def _has_prefixes(self, prefixes: tuple[bytes, ...]) -> bool:
        if not self._are_prefixes:
            return False
        try:
            for reply, prefix in zip(self._replies, prefixes):  # noqa: B905 - as many: `strict` costs a third
                if reply.result() != prefix:
                    return False
        except (RedisUnavailable, RedisReplyError, asyncio.CancelledError, asyncio.InvalidStateError):
            return False
        return True

    def _answer(self) -> list[bytes | None]:
        try:
            answers = [reply.result() for reply in self._replies]
        except (RedisUnavailable, RedisReplyError, asyncio.CancelledError, asyncio.InvalidStateError):
            return []
        return answers[0] if self._in_one else answers


class Cache:
    """JSON values by key, each with a time to live. Redis being down is never an error for the caller."""

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
        self.link = link
        self._metrics = metrics
        self._hits, self._misses = metrics.tally(metrics.cache_hits), metrics.tally(metrics.cache_misses)
        self._ttl_ms = ttl_seconds * 1000
        self.stale_ms = stale_seconds * 1000
        self._kept_ms = self._ttl_ms + self.stale_ms
        self._deadline_ms = deadline_ms
        self._fill = load_script("fill_cache")
        self._decoded = DecodedValues()
        self.loads = SingleFlight(self._load)
        self._pending: set[str] = set()
        self._retry: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Cancel background work. Invalidations that Redis has not received are bounded by the entries' TTL."""
        await self.loads.close()
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)

    def lookup(self, key: str) -> Lookup:
        """Ask for a key now, in one write with other commands of this turn of the event loop; await its value later.

        Where this process has decoded a large value of the key, only its version and time are asked for.
        """
        if self._decoded.is_large(key):
            reply = self.link.submit("GETRANGE", key, 0, PREFIX_BYTES - 1)
            return Lookup(self, key, reply, is_prefix=True)
        return Lookup(self, key, self.link.submit("GET", key))

    def lookup_each(self, *keys: str) -> list[Lookup]:
        """Ask for several keys now, in one write; in one command, if one server has all and none has a large value."""
        if self.link.is_cluster or any(map(self._decoded.is_large, keys)):
            return list(map(self.lookup, keys))
        reply = self.link.submit("MGET", *keys)
        return [Lookup(self, key, reply, index) for index, key in enumerate(keys)]

    def lookups(self, keys: CacheKeys, seen: Seen | None = None) -> Lookups:
        """Ask for several keys now, in one write; await their values later.

        Args:
            keys: what is asked for.
            seen: the versions that something was made of, which is all one needs as long as they are `are_still`.
        """
        return Lookups(self, keys, seen)

    async def invalidate(
        self, keys: Iterable[str], successors: Mapping[str, Successor] | None = None
    ) -> None:
        """Invalidate keys for all processes, after the write that changed them has been committed.

        What can't be sent to Redis now is sent as soon as it is back; until then this process neither reads nor fills
        these keys.

        Args:
            keys: what the write has changed.
            successors: new values for some of them (from `Kept.succeeded_by`), if nothing has happened there since.
        """
        stale = set(keys)
        if not stale:
            return
        try:
            failed = await self._invalidate(stale, successors)
        except BaseException:
            self._remember(stale)  # cancelled: some may have been sent
            raise
        self._remember(failed)

    async def _invalidate(
        self, keys: Iterable[str], successors: Mapping[str, Successor] | None = None
    ) -> list[str]:
        """Put tombstones or successors in the place of keys; return the keys for which that failed."""
        keys = list(keys)
        if self._pending:  # what was seen at a key predates an invalidation that Redis has not received
            successors = {
                key: successor for key, successor in (successors or {}).items() if key not in self._pending
            }
        with measure("cache", "cache.invalidate"):
            result = await invalidate(self.link, keys, deadline_ms=self._deadline_ms, successors=successors)
        for failure in result.failures.values():
            self.note_error(failure)
        sent = [key for key in keys if key not in result.failures]
        self._metrics.cache_sets.inc(len(result.succeeded))
        self._metrics.cache_deletes.inc(len(sent) - len(result.succeeded))
        self._pending.difference_update(sent)
        return list(result.failures)

    def _remember(self, keys: Iterable[str]) -> None:
        room = _MOST_PENDING - len(self._pending)
        self._pending.update(islice(keys, max(0, room)))
        if self._pending and (self._retry is None or self._retry.done()):
            self._retry = asyncio.create_task(self._retry_pending(), name="cache invalidations")

    async def _retry_pending(self) -> None:
        current_timings.set(None)  # no request waits for this
        while self._pending:
            await asyncio.sleep(_RETRY_SECONDS)
            if self.link.connected:
                await self._invalidate(islice(self._pending, _RETRIED_AT_ONCE))

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
                    filled = await self.link.run_script(
                        self._fill, [key], [seen, stored, self._kept_ms], deadline_ms=self._deadline_ms
                    )
            except (RedisUnavailable, RedisReplyError) as error:
                self.note_error(error)
            else:
                if filled == 1:
                    self._metrics.cache_sets.inc()
        return value

    async def read(self, key: str, reply: asyncio.Future[Any], index: int | None) -> bytes | None:
        """Redis's reply to a lookup: the stored bytes, empty if there are none; None if it can't be asked."""
        answer = await self.answer_of(reply)
        if answer is None:
            return None
        stored: bytes | None = answer[0] if index is None else answer[0][index]
        # Checked after the reply: it may come from a Redis that is back and has not received the invalidation yet.
        return None if key in self._pending else stored or b""

    async def answer_of(self, reply: asyncio.Future[Any]) -> tuple[Any] | None:
        """Redis's reply to a read, for a writer or for `read`; None if Redis can't be asked."""
        try:
            with measure("cache", "cache.read"):
                return (await reply,)
        except (RedisUnavailable, RedisReplyError) as error:
            self.note_error(error)
            return None

    def keep(self, key: str, stored: bytes | None) -> Kept | None:
        """What a writer may replace, neither counted nor loaded; None without a value, or where it has to go."""
        value = None if not stored or key in self._pending else self.decode(key, stored)
        return None if stored is None or value is None else Kept(self, stored, value)

    def has_decoded(self, key: str, stored: bytes) -> bool:
        """Whether `decode` needs no more than the version of what Redis holds."""
        return self._decoded.find(key, head_of(stored)) is not None

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

    def none_pending(self, keys: Iterable[str]) -> bool:
        """Whether Redis has received every invalidation of these keys by this process."""
        return not self._pending or self._pending.isdisjoint(keys)

    def note_hits(self, count: int = 1) -> None:
        """Count values that were used."""
        self._hits.inc(count)

    def note_miss(self) -> None:
        """Count a value that had to be loaded."""
        self._misses.inc()


class Lookup:
    """A pending lookup of one key."""

    __slots__ = ("_cache", "_index", "_is_prefix", "_key", "_reply")

    def __init__(
        self,
        cache: Cache,
        key: str,
        reply: asyncio.Future[Any],
        index: int | None = None,
        *,
        is_prefix: bool = False,
    ) -> None:
        self._cache = cache
        self._key = key
        self._reply = reply
        self._index = index
        self._is_prefix = is_prefix

    async def value(self, load: Load, *, usable: Callable[[Any], bool] | None = None) -> Any:
        """The cached value, else the loaded one, which is then stored for the next reader.

        Args:
            load: reads the value from the database; its result is what JSON can hold. None is not stored.
            usable: says of a cached value whether it still fits; one that does not is loaded anew.

        Raises: what `load` raises.
        """
        cache = self._cache
        stored = await self._stored()
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
                    cache.loads.refresh(self._key, head_of(stored), load)
                return value
            cache.note_miss()
            _note_outcome("MISS")
        value = await cache.loads.join(self._key, None if stored is None else head_of(stored), load)
        if value is not None and usable is not None and not usable(value):
            return await load()  # the run was another caller's, which needed another variant
        return value

    async def kept(self) -> Kept | None:
        """What the cache holds, or None: for a writer that knows the next value. Neither counted nor loaded."""
        return self._cache.keep(self._key, await self._stored())

    async def _stored(self) -> bytes | None:
        """As `Cache.read`; of a value that this process has decoded perhaps no more than what comes before its JSON."""
        cache, key = self._cache, self._key
        stored = await cache.read(key, self._reply, self._index)
        if self._is_prefix and stored and is_value(stored) and not cache.has_decoded(key, stored):
            stored = await cache.read(key, cache.link.submit("GET", key), None)
        return stored


class Kept:
    """A value as the cache holds it."""

    __slots__ = ("_cache", "_stored", "value")

    def __init__(self, cache: Cache, stored: bytes, value: Any) -> None:
        self._cache = cache
        self._stored = stored
        self.value = value

    def succeeded_by(self, value: Any) -> Successor:
        """The value that takes its place, for `Cache.invalidate`.

        Inherits the old value's expiry, so an update missed because of a crash is never extended.
        """
        fresh_ms = remaining_ms(self._stored)
        stored = encode(value, fresh_ms=fresh_ms)
        return Successor(head_of(self._stored), stored, fresh_ms + self._cache.stale_ms)


def _note_outcome(outcome: CacheOutcome) -> None:
    timings = current_timings.get()
    if timings is not None:
        timings.note_cache(outcome)

"""What the cache stores in Redis, a memory of the values that this process has decoded already, and invalidation.

Stored are a marker and eight random bytes; for a value, the time until which it is fresh and its JSON follow. The
random bytes make each version of a key unique: `fill_cache.lua` stores a loaded value only if the version that its
reader has seen is still there.

Invalidation puts a tombstone in the place of a value, so that no load that began before can store its result. A writer
that knows the new value stores that instead, if the value that it has seen is still there.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from server.stores.redis.protocol import ScriptCall
from server.stores.redis.scripts import load_script

_VALUE, _TOMBSTONE = b"V", b"T"
_NONCE_BYTES = 8
HEAD_BYTES = 1 + _NONCE_BYTES
# Milliseconds since 1970.
_FRESH_UNTIL = struct.Struct(">Q")
PREFIX_BYTES = HEAD_BYTES + _FRESH_UNTIL.size
# Longer than any load may take: a reader that looked before the invalidation must still find the tombstone.
TOMBSTONE_MS = 60_000
# Decoded, a value takes several times its encoded size.
DEFAULT_MAX_BYTES = 16 << 20
# From this size on, another round trip after a change costs less than sending the value each time.
_LARGE_BYTES = 16 << 10
_REPLACE = load_script("replace_cache")


def encode(value: Any, *, fresh_ms: int) -> bytes:
    """Encode a JSON value as a new version that is fresh for `fresh_ms` milliseconds."""
    fresh_until = _FRESH_UNTIL.pack(max(0, int(time.time() * 1000) + fresh_ms))
    return _VALUE + secrets.token_bytes(_NONCE_BYTES) + fresh_until + orjson.dumps(value)


def tombstone() -> bytes:
    """What takes the place of an invalidated value. No two are equal."""
    return _TOMBSTONE + secrets.token_bytes(_NONCE_BYTES)


def head_of(stored: bytes) -> bytes:
    """The bytes that identify a version of a key; empty where there is no key."""
    return stored[:HEAD_BYTES]


def is_value(stored: bytes) -> bool:
    """Whether there is a value, and not a tombstone or nothing."""
    return stored.startswith(_VALUE)


def decode(stored: bytes) -> Any:
    """The value.

    Raises:
        orjson.JSONDecodeError: what is stored was not written by us.
    """
    return orjson.loads(memoryview(stored)[PREFIX_BYTES:])


def is_fresh(stored: bytes) -> bool:
    """Whether a value is still fresh."""
    return time.time() * 1000 < fresh_until_ms(stored)


def fresh_until_ms(stored: bytes) -> int:
    """When a value ceases to be fresh, in milliseconds since 1970."""
    instant: int
    (instant,) = _FRESH_UNTIL.unpack_from(stored, HEAD_BYTES)
    return instant


def remaining_ms(stored: bytes) -> int:
    """How much longer a value is fresh, in milliseconds; negative where it no longer is."""
    return fresh_until_ms(stored) - int(time.time() * 1000)


class DecodedValues:
    """Decoded values by key and version, bounded by the encoded size of what it holds; the oldest go first.

    A value is found only under the version that Redis has just answered with, so it is never older than Redis's own.
    The values are shared: callers must not change them.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[str, tuple[bytes, int, Any]] = OrderedDict()

    def find(self, key: str, version: bytes) -> Any:
        """The value of a version of a key; None if it is not known."""
        known = self._known.get(key)
        return known[2] if known is not None and known[0] == version else None

    def is_large(self, key: str) -> bool:
        """Whether some version of a key is known, and has a large value."""
        known = self._known.get(key)
        return known is not None and known[1] > _LARGE_BYTES

    def remember(self, key: str, version: bytes, size: int, value: Any) -> None:
        """Keep the value of a version in the place of the one before. Args: size: of its encoded form, in bytes."""
        former = self._known.pop(key, None)
        if former is not None:
            self._bytes -= former[1]
        self._known[key] = (version, size, value)
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, oldest_size, _) = self._known.popitem(last=False)
            self._bytes -= oldest_size


@dataclass(frozen=True, slots=True)
class Successor:
    """A value that takes the place of another.

    Args:
        seen: the version that was there when the writer looked.
        stored: the new value, in the form of `values`.
        kept_ms: its time to live, milliseconds.
    """

    seen: bytes
    stored: bytes
    kept_ms: int


@dataclass(slots=True)
class Invalidated:
    """The result of an invalidation: the keys that hold their successor, and the error of each key that failed."""

    succeeded: list[str] = field(default_factory=list)
    failures: dict[str, RedisUnavailable | RedisReplyError] = field(default_factory=dict)


async def invalidate(
    link: RedisLink,
    keys: Collection[str],
    *,
    deadline_ms: float,
    successors: Mapping[str, Successor] | None = None,
) -> Invalidated:
    """Put a tombstone or a successor at each key, so that no reader finds the old value there, nor stores it again.

    Args:
        link: to Redis.
        keys: what is no longer valid.
        deadline_ms: for each key, in milliseconds.
        successors: the new values of some of the keys.
    """
    successors = successors or {}
    begun = [(key, *_begin(link, key, successors.get(key), deadline_ms)) for key in keys]
    result = Invalidated()
    for key, reply, call in begun:
        try:
            outcome = await _outcome_of(link, reply, call, deadline_ms)
        except (RedisUnavailable, RedisReplyError) as error:
            result.failures[key] = error
        else:
            if call is not None and outcome == 1:
                result.succeeded.append(key)
    return result


def _begin(
    link: RedisLink, key: str, successor: Successor | None, deadline_ms: float
) -> tuple[asyncio.Future[Any], ScriptCall | None]:
    """Send what invalidates a key: its reply, and the script's call where there is a successor."""
    if successor is None or successor.kept_ms <= 0:
        return link.submit("SET", key, tombstone(), "PX", TOMBSTONE_MS, deadline_ms=deadline_ms), None
    arguments = (successor.seen, successor.stored, successor.kept_ms, tombstone(), TOMBSTONE_MS)
    call = ScriptCall(_REPLACE, [key], arguments)
    return link.begin(call, deadline_ms=deadline_ms), call


async def _outcome_of(
    link: RedisLink, reply: asyncio.Future[Any], call: ScriptCall | None, deadline_ms: float
) -> Any:
    """What Redis has answered; 1 from the script if the key holds its successor now."""
    try:
        return await reply
    except RedisReplyError as error:
        if call is None or error.code != "NOSCRIPT":
            raise
    return await link.run(call, deadline_ms=deadline_ms)

"""Invalidation: puts a tombstone in the place of a value, so that no load that began before can store its result.

A writer that knows the new value stores that instead, if the value that it has seen is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from server.stores.cache.values import TOMBSTONE_MS, tombstone
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from server.stores.redis.scripts import load_script

_REPLACE = load_script("replace_cache")


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
    outcomes = await asyncio.gather(
        *(_invalidate_one(link, key, successors.get(key), deadline_ms) for key in keys),
        return_exceptions=True,
    )
    result = Invalidated()
    for key, outcome in zip(keys, outcomes, strict=True):
        if isinstance(outcome, RedisUnavailable | RedisReplyError):
            result.failures[key] = outcome
        elif isinstance(outcome, BaseException):
            raise outcome
        elif outcome:
            result.succeeded.append(key)
    return result


async def _invalidate_one(link: RedisLink, key: str, successor: Successor | None, deadline_ms: float) -> bool:
    """Return whether the key holds its successor now, and not a tombstone."""
    if successor is None or successor.kept_ms <= 0:
        await link.execute("SET", key, tombstone(), "PX", TOMBSTONE_MS, deadline_ms=deadline_ms)
        return False
    arguments = (successor.seen, successor.stored, successor.kept_ms, tombstone(), TOMBSTONE_MS)
    replaced: int = await link.run_script(_REPLACE, [key], arguments, deadline_ms=deadline_ms)
    return replaced == 1

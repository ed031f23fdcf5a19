"""Invalidation: a tombstone in the place of a value, where every reader and every late fill finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from server.stores.redis_link import RedisLink, RedisReplyError, RedisUnavailable
from server.stores.stored_values import TOMBSTONE_MS, tombstone


async def bury(
    link: RedisLink, keys: Collection[str], *, deadline_ms: float
) -> dict[str, RedisUnavailable | RedisReplyError]:
    """Put a tombstone at each key, so that no reader finds an old value there, nor brings one back.

    Returns:
        What went wrong, by key; empty once Redis knows them all.
    """
    outcomes = await asyncio.gather(
        *(
            link.execute(
                "SET", key, tombstone(), "PX", TOMBSTONE_MS,
                deadline_ms=deadline_ms,
            )
            for key in keys
        ),
        return_exceptions=True,
    )  # fmt: skip
    failures: dict[str, RedisUnavailable | RedisReplyError] = {}
    for key, outcome in zip(keys, outcomes, strict=True):
        if isinstance(outcome, RedisUnavailable | RedisReplyError):
            failures[key] = outcome
        elif isinstance(outcome, BaseException):
            raise outcome
    return failures

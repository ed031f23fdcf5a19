"""Real Redis servers that a test may break, and links to them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from server.development import bundled_servers, find_redis_server
from server.stores.redis.link import RedisLink, RedisUnavailable
from server.stores.redis.scripts import Script


def script_of(source: bytes) -> Script:
    """A script that has no file."""
    return Script("test", source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


ADD = script_of(b"return redis.call('INCRBY', KEYS[1], ARGV[1])")


# For tests that are not about time: no busy machine is so late.
PATIENT: dict[str, float] = {
    "deadline_ms": 60_000, "connect_timeout_ms": 60_000, "stall_limit_ms": 60_000,
}  # fmt: skip


def redis_binaries() -> list[Path]:
    """The servers to test against: those of packages (Valkey 9, Redis 6.2), MASTERY_TEST_REDIS, and the PATH's."""
    found = bundled_servers() or [find_redis_server()]
    for more in (os.environ.get("MASTERY_TEST_REDIS"), shutil.which("redis-server")):
        if more and Path(more) not in found:
            found.append(Path(more))
    return found


@contextlib.asynccontextmanager
async def open_link(url: str, *, deadline_ms: float = 2000, **options: Any) -> AsyncIterator[RedisLink]:
    """A started link, closed at the end; its deadline is generous, because most tests are not about it."""
    link = RedisLink(url, deadline_ms=deadline_ms, **options)
    await link.start()
    try:
        yield link
    finally:
        await link.close()


async def let_the_loop_write() -> None:
    """Let some turns of the loop pass, in which submitted commands are written."""
    for _ in range(5):
        await asyncio.sleep(0)


async def answers(link: RedisLink) -> bool:
    """Whether the link can serve a write at the moment."""
    try:
        await link.execute("SET", "answers", 1)
    except RedisUnavailable:
        return False
    return True


async def refusal(awaitable: Awaitable[object]) -> RedisUnavailable:
    """The RedisUnavailable that a call raises; anything else fails the test."""
    with pytest.raises(RedisUnavailable) as caught:
        await awaitable
    return caught.value

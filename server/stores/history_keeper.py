"""Keeps the dashboard's history in Redis, so that it survives a reload, a worker and a deployment."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from server.stores.redis_link import RedisLink, RedisReplyError, RedisUnavailable
from server.telemetry.history import KEPT_SECONDS, History
from server.telemetry.totals import Totals

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 5.0
_DEADLINE_MS: Final = 500


class HistoryKeeper:
    """A task of every worker. Every few seconds one of them adds a point, and all of them read what there is.

    Whose turn it is, a key with a time to live decides: who sets it, writes. Without Redis every worker goes on by
    itself from what it has read last. What is counted is what the workers of this machine share, so machines keep
    histories of their own.

    Args:
        redis: the link; it is not closed here.
        sample: reads what all workers have counted.
        also: called every time as well, to bring other numbers of this worker to Redis.
        machine: a name for the machine; by default its own, hashed.
        interval_seconds: between two points.
    """

    def __init__(
        self,
        redis: RedisLink,
        *,
        sample: Callable[[], Awaitable[Totals]],
        also: Callable[[], Awaitable[None]],
        machine: str | None = None,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._redis = redis
        self._sample = sample
        self._also = also
        self._interval_seconds = interval_seconds
        name = machine or hashlib.blake2b(socket.gethostname().encode(), digest_size=6).hexdigest()
        self._key, self._turn_key = f"h:history:{name}", f"h:turn:{name}"
        self._task: asyncio.Task[None] | None = None
        self.history = History()

    async def start(self) -> None:
        """Begin; the first look is under way when this returns."""
        self._task = asyncio.create_task(self._run(), name="history-keeper")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def keep(self) -> None:
        """Read what is kept, and add to it if it is this worker's turn."""
        turn_ms = round(900 * self._interval_seconds)
        asked = (
            self._redis.execute("GET", self._key, deadline_ms=_DEADLINE_MS),
            self._redis.execute("SET", self._turn_key, 1, "NX", "PX", turn_ms, deadline_ms=_DEADLINE_MS),
        )
        packed, turn = await asyncio.gather(*asked, return_exceptions=True)
        if isinstance(packed, bytes):
            kept = History.unpack(packed)
            if kept is not None and kept.time > self.history.time:
                self.history = kept
        if turn is None:
            return  # another worker's, a moment ago
        self.history.add(await self._sample(), int(time.time()))
        if not isinstance(turn, BaseException):
            await self._store()

    async def _store(self) -> None:
        packed = await asyncio.to_thread(self.history.pack)
        with contextlib.suppress(RedisUnavailable, RedisReplyError):  # the next turn stores all of it
            await self._redis.execute("SET", self._key, packed, "EX", KEPT_SECONDS, deadline_ms=_DEADLINE_MS)

    async def _run(self) -> None:
        while True:
            try:
                await self._also()
                await self.keep()
            except Exception as error:  # noqa: BLE001 - the page may miss a point; the service goes on
                log.warning("dashboard.point_missed", error=error)
            await asyncio.sleep(self._interval_seconds)

"""Keeps the dashboard's history in Redis, so that it survives a reload, a worker and a deployment."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from server.dashboard.fleet import Fleet
from server.dashboard.history import KEPT_SECONDS, History
from server.dashboard.totals import Totals
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from server.stores.redis.scripts import load_script

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 5.0
_DEADLINE_MS: Final = 500
_MOST_MACHINES: Final = 50
_MACHINES_KEY: Final = (
    "h:{history}:machines"  # one hash slot, so that one call gets all histories from a cluster too
)


class HistoryKeeper:
    """A task of every worker. Every few seconds one of them adds a point, and all of them read what there is.

    Whose turn it is, a key with a time to live decides: who sets it, writes. Without Redis every worker goes on by
    itself from what it has read last. What is counted is what the workers of this machine share, so machines keep
    histories of their own; who looks gets all of them together.

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
        self._name, self._key, self._turn_key = name, _key(name), f"h:turn:{name}"
        self._script = load_script("store_history")
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

    async def fleet(self) -> Fleet:
        """What all machines remember, as of now; without Redis this one alone."""
        others: list[Any] = []
        with contextlib.suppress(RedisUnavailable, RedisReplyError):
            names = await self._redis.execute("ZRANGE", _MACHINES_KEY, 0, -1, deadline_ms=_DEADLINE_MS)
            keys = [_key(name.decode()) for name in names if name.decode() != self._name]
            if keys:
                others = await self._redis.execute("MGET", *keys, deadline_ms=_DEADLINE_MS)
        if not any(others):
            return Fleet.of([self.history])
        return await asyncio.to_thread(_together, self.history, [packed for packed in others if packed])

    async def _store(self) -> None:
        packed = await asyncio.to_thread(self.history.pack)
        with contextlib.suppress(RedisUnavailable, RedisReplyError):  # the next turn stores all of it
            await self._redis.run_script(
                self._script,
                [self._key, _MACHINES_KEY],
                [packed, self._name, int(time.time()), KEPT_SECONDS, _MOST_MACHINES],
                deadline_ms=_DEADLINE_MS,
            )

    async def _run(self) -> None:
        while True:
            try:
                await self._also()
                await self.keep()
            except Exception as error:  # noqa: BLE001 - the page may miss a point; the service goes on
                log.warning("dashboard.point_missed", error=error)
            await asyncio.sleep(self._interval_seconds)


def _key(machine: str) -> str:
    return f"h:{{history}}:of:{machine}"


def _together(own: History, packed: list[bytes]) -> Fleet:
    """For a thread: unpacking takes milliseconds."""
    others = [history for each in packed if (history := History.unpack(each)) is not None]
    return Fleet.of([own, *others])

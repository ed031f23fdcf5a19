"""What the dashboard keeps in Redis, where it outlives the page, the worker and the release.

That is this machine's history beside the others', and the clients that the rate limiter has refused most lately, masked
before they are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import re
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from server.dashboard.fleet import Fleet
from server.dashboard.history import KEPT_SECONDS, History, Totals
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from server.stores.redis.scripts import load_script
from server.tasks import Periodic

SLOT_SECONDS: Final = 600
_KEPT_SLOTS: Final = 3
_MOST_KEPT: Final = 100
# In this process, until the next flush; further clients are counted together.
_MOST_PENDING: Final = 500
_OTHERS: Final = "others"
_DEADLINE_MS: Final = 500
INTERVAL_SECONDS: Final = 5.0
_MOST_MACHINES: Final = 50
# One hash slot, so that one call gets all histories from a cluster, too.
_MACHINES_KEY: Final = "h:{history}:machines"


class Refusals:
    """Counts over all workers, in Redis, whose link is not closed here; what can't be sent to Redis waits here."""

    def __init__(self, redis: RedisLink) -> None:
        self._redis = redis
        self._script = load_script("count_refusals")
        self._pending: Counter[str] = Counter()
        self._masked = functools.lru_cache(maxsize=_MOST_PENDING)(mask_subject)

    def note(self, subject: str) -> None:
        """A request of this subject, such as `ip:192.0.2.1`, was refused."""
        client = self._masked(subject)
        if client not in self._pending and len(self._pending) >= _MOST_PENDING:
            client = _OTHERS
        self._pending[client] += 1

    async def flush(self) -> None:
        """Send the counts to Redis; without Redis they wait here."""
        noted, self._pending = self._pending, Counter()
        if not noted:
            return
        arguments = [item for client, count in noted.most_common() for item in (count, client)]
        try:
            await self._redis.run_script(
                self._script,
                [_refusals_key(time.time())],
                [_KEPT_SLOTS * SLOT_SECONDS * 1000, _MOST_KEPT, *arguments],
                deadline_ms=_DEADLINE_MS,
            )
        except RedisUnavailable as error:
            if not error.outcome_unknown:  # else they may have been counted: once is better than twice
                self._pending.update(noted)
        except RedisReplyError:
            self._pending.update(noted)

    async def most_refused(self, count: int) -> list[tuple[str, int]]:
        """The clients with the most refusals in the last ten to twenty minutes, the most refused one first."""
        now = time.time()
        tally = Counter(self._pending)
        slots = [
            self._redis.execute(
                "ZREVRANGE", _refusals_key(at), 0, count - 1, "WITHSCORES", deadline_ms=_DEADLINE_MS
            )
            for at in (now, now - SLOT_SECONDS)
        ]
        for reply in await asyncio.gather(*slots, return_exceptions=True):
            if isinstance(reply, BaseException):
                continue
            for client, refusals in zip(reply[::2], reply[1::2], strict=True):
                tally[client.decode(errors="replace")] += int(float(refusals))
        return tally.most_common(count)


def mask_subject(subject: str) -> str:
    """A subject of the limiter without what identifies a person: enough to distinguish clients.

    An IPv4 address keeps its first three numbers, an IPv6 network its first two groups, an account the first eight
    digits of its id, an e-mail address the first six of its digest.
    """
    kind, _, value = subject.partition(":")
    if kind == "ip" and ":" in value:
        return f"ip:{':'.join(re.split(':+', value)[:2])}:…"
    if kind == "ip":
        return f"ip:{value.rpartition('.')[0]}.…"
    return f"{kind}:{value[: 6 if kind == 'email' else 8]}…"


def _refusals_key(now: float) -> str:
    return f"h:refused:{int(now) // SLOT_SECONDS}"


class HistoryKeeper(Periodic):
    """A task of every worker: every few seconds one of them adds a point to the history, and all of them read it.

    A key with a time to live decides whose turn it is: the worker that sets it writes. Without Redis every worker goes
    on by itself from what it has read last. Each machine has a history of its own, because its workers share their
    counts; `fleet` puts them together.

    Args:
        redis: the link; it is not closed here.
        sample: reads what all workers have counted.
        also: called every time before, to send other numbers of this worker to Redis.
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
        super().__init__(
            "history-keeper", interval_seconds=interval_seconds, failure="dashboard.point_missed"
        )
        self._redis = redis
        self._sample = sample
        self._also = also
        self._machine = machine or hashlib.blake2b(socket.gethostname().encode(), digest_size=6).hexdigest()
        self._key, self._turn_key = _history_key(self._machine), f"h:turn:{self._machine}"
        self._turn_ms = round(900 * interval_seconds)  # a little shorter than the interval
        self._script = load_script("store_history")
        self.history = History()

    async def once(self) -> None:
        """Send this worker's other numbers to Redis, and keep the history."""
        await self._also()
        await self.keep()

    async def keep(self) -> None:
        """Read what is kept, and add to it if it is this worker's turn."""
        asked = (
            self._redis.execute("GET", self._key, deadline_ms=_DEADLINE_MS),
            self._redis.execute(
                "SET", self._turn_key, 1, "NX", "PX", self._turn_ms, deadline_ms=_DEADLINE_MS
            ),
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
        """The histories of all machines together; without Redis, this machine's alone."""
        others: list[Any] = []
        with contextlib.suppress(RedisUnavailable, RedisReplyError):
            names = await self._redis.execute("ZRANGE", _MACHINES_KEY, 0, -1, deadline_ms=_DEADLINE_MS)
            keys = [_history_key(name.decode()) for name in names if name.decode() != self._machine]
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
                [packed, self._machine, int(time.time()), KEPT_SECONDS, _MOST_MACHINES],
                deadline_ms=_DEADLINE_MS,
            )


def _history_key(machine: str) -> str:
    return f"h:{{history}}:of:{machine}"


def _together(own: History, packed: list[bytes]) -> Fleet:
    """For a thread: unpacking takes milliseconds."""
    others = [history for value in packed if (history := History.unpack(value)) is not None]
    return Fleet.of([own, *others])

"""The clients that the rate limiter has refused most lately, masked before they are counted."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections import Counter
from typing import Final

from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from server.stores.redis.scripts import load_script

SLOT_SECONDS: Final = 600
_KEPT_SLOTS: Final = 3
_MOST_KEPT: Final = 100
# In this process, until the next flush; further clients are counted together.
_MOST_PENDING: Final = 500
_OTHERS: Final = "others"
_DEADLINE_MS: Final = 500


class Refusals:
    """Counts over all workers, in Redis; what can't be sent to Redis waits here.

    Args:
        redis: the link; it is not closed here.
    """

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
                [_key(time.time())],
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
            self._redis.execute("ZREVRANGE", _key(at), 0, count - 1, "WITHSCORES", deadline_ms=_DEADLINE_MS)
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


def _key(now: float) -> str:
    return f"h:refused:{int(now) // SLOT_SECONDS}"

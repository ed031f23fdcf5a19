"""While Redis is away: the policies' failure modes decide, and what they admit is charged when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

import structlog

from server.ratelimit.arrears import Arrears
from server.ratelimit.breaker import Breaker
from server.ratelimit.calls import Calls
from server.ratelimit.fallback import Fallback
from server.ratelimit.keys import PROBE_KEY
from server.ratelimit.policies import Charge, Decision
from server.stores.redis_link import RedisLink, RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

PROBE_KEPT_MS = 1000


class Outage:
    """Knows whether Redis is away, decides meanwhile, and settles the account afterwards.

    Args:
        link: to Redis.
        calls: charges the arrears.
        workers: how many processes share the limits of `local` policies meanwhile.
    """

    def __init__(self, link: RedisLink, calls: Calls, *, workers: Callable[[], int]) -> None:
        self._link = link
        self._calls = calls
        self._breaker = Breaker(self._is_well)
        self._fallback = Fallback(workers=workers)
        self._arrears = Arrears()
        self._settling: asyncio.Task[bool] | None = None

    @property
    def is_on(self) -> bool:
        """Whether Redis must not be asked: it has failed repeatedly, and no probe has succeeded since."""
        return self._breaker.is_open

    def failed(self, reason: str) -> None:
        """Redis has not answered a decision; `reason` is a short word."""
        self._breaker.failed(reason)

    def succeeded(self) -> None:
        """Redis has answered a decision."""
        self._breaker.succeeded()
        if self._arrears and (self._settling is None or self._settling.done()):
            self._settling = asyncio.get_running_loop().create_task(self._settle())

    def learn(self, charge: Charge, remaining: int, now: float) -> None:
        """Redis said how much a `local` policy has left: where counting starts when it goes away."""
        self._fallback.learn(charge, remaining, now)

    def decide(self, charges: Sequence[Charge], now: float, *, owed: bool) -> Decision:
        """What the policies' failure modes say.

        Args:
            charges: of the request.
            now: monotonic seconds.
            owed: Redis has certainly not charged it: if it is admitted, that is made up for.
        """
        decision = self._fallback.decide(charges, now)
        if decision.allowed and owed:
            for charge in charges:
                self._arrears.add(charge, now)
        return decision

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._breaker.close()
        if self._settling is not None and not self._settling.done():
            self._settling.cancel()
            await asyncio.wait([self._settling])

    async def _is_well(self) -> bool:
        """Whether Redis takes writes again; what was admitted meanwhile is charged before anyone asks it."""
        try:
            await self._link.execute("SET", PROBE_KEY, b"1", "PX", PROBE_KEPT_MS)
        except (RedisUnavailable, RedisReplyError):
            return False
        if not await self._settle():
            return False
        self._fallback.forget()
        return True

    async def _settle(self) -> bool:
        """Charge the arrears there are now; False if Redis went away again."""
        for _ in range(len(self._arrears)):
            now = monotonic()
            charges = self._arrears.take(now)
            if not charges:
                break
            try:
                await self._calls.charge_arrears(charges)
            except RedisUnavailable as error:
                if not error.outcome_unknown:
                    self._arrears.put_back(charges, now)
                return False
            except RedisReplyError as error:
                log.warning("rate_limit.arrears_refused", error=error.code)
        return True

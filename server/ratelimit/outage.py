"""While Redis is down: the policies' failure modes decide, and what they admit is charged when it is back.

A Redis Cluster is down in parts: each of its servers has a breaker of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

import structlog

from server.ratelimit.arrears import Arrears
from server.ratelimit.breaker import Breaker
from server.ratelimit.calls import Calls
from server.ratelimit.fallback import Fallback
from server.ratelimit.keys import probe_key, state_key
from server.ratelimit.policies import Charge, Decision
from server.ratelimit.prepared import PreparedCharges
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

PROBE_KEPT_MS = 1000

# Failures that say nothing about the server: this process has more to ask than it may have unanswered.
_OWN_DOING = frozenset({"backlog"})


class Outage:
    """Knows which servers are down, decides meanwhile, and settles the account afterwards.

    Args:
        link: to Redis.
        calls: charges the arrears.
        workers: how many processes share the limits of `local` policies meanwhile.
        on_change: called with whether any breaker is open, when that has changed.
    """

    def __init__(
        self,
        link: RedisLink,
        calls: Calls,
        *,
        workers: Callable[[], int],
        on_change: Callable[[bool], None] = lambda _is_on: None,
    ) -> None:
        self._link = link
        self._calls = calls
        self._on_change = on_change
        self._breakers: dict[str, Breaker] = {}  # of servers that have failed since their last answer
        self._fallback = Fallback(workers=workers)
        self._arrears = Arrears()
        self._settling: asyncio.Task[bool] | None = None

    def concerns(self, charges: PreparedCharges) -> bool:
        """Whether Redis must not be asked about these charges: a server that counts one of them is down."""
        return bool(self._breakers) and any(self._is_down(key) for key in charges.keys)

    def failed(self, error: RedisUnavailable, charges: PreparedCharges) -> None:
        """Redis has not answered a decision on these charges."""
        if error.reason in _OWN_DOING:
            return
        node = error.node
        breaker = self._breakers.get(node)
        if breaker is None:
            subject = next(
                (one.subject for one in charges if self._link.node_of(state_key(one)) == node),
                charges[0].subject,
            )
            breaker = self._breakers[node] = Breaker(
                partial(self._is_well, node, subject), on_close=partial(self._came_back, node)
            )
        if breaker.failed():
            log.warning("rate_limit.redis_away", server=node, error=error.reason, failures=breaker.failures)
            self._on_change(True)

    def succeeded(self, charges: PreparedCharges) -> None:
        """Redis has answered a decision on these charges."""
        if self._breakers:
            for node in {self._link.node_of(key) for key in charges.keys}:
                breaker = self._breakers.get(node)
                if breaker is not None and not breaker.is_open:
                    del self._breakers[node]
        if self._arrears and (self._settling is None or self._settling.done()):
            self._settling = asyncio.get_running_loop().create_task(self._settle())

    def learn(self, charge: Charge, remaining: int, now: float) -> None:
        """Redis reported how much a `local` policy has left: where counting starts when it is down."""
        self._fallback.learn(charge, remaining, now)

    def decide(self, charges: Sequence[Charge], now: float, *, owed: bool) -> Decision:
        """What the policies' failure modes say.

        Args:
            charges: of the request.
            now: monotonic seconds.
            owed: whether to charge Redis later if the request is admitted. Set only when Redis cannot have charged it.
        """
        decision = self._fallback.decide(charges, now)
        if decision.allowed and owed:
            for charge in charges:
                self._arrears.add(charge, now)
        return decision

    async def close(self) -> None:
        """Stop what runs in the background."""
        await asyncio.gather(*(breaker.close() for breaker in self._breakers.values()))
        if self._settling is not None and not self._settling.done():
            self._settling.cancel()
            await asyncio.wait([self._settling])

    def _is_down(self, key: bytes) -> bool:
        breaker = self._breakers.get(self._link.node_of(key))
        return breaker is not None and breaker.is_open

    def _came_back(self, node: str) -> None:
        del self._breakers[node]
        log.info("rate_limit.redis_back", server=node)
        if not any(breaker.is_open for breaker in self._breakers.values()):
            self._on_change(False)

    async def _is_well(self, node: str, subject: str) -> bool:
        """Whether a subject's server takes writes again; what was admitted meanwhile is charged before it is asked."""
        try:
            await self._link.execute("SET", probe_key(subject), b"1", "PX", PROBE_KEPT_MS)
        except (RedisUnavailable, RedisReplyError):
            return False
        return await self._settle(node)

    async def _settle(self, back: str | None = None) -> bool:
        """Charge the arrears there are now, but for those of servers that are down; False if Redis fails again.

        Args:
            back: a server whose breaker is open only until this is done.
        """
        kept: list[tuple[list[tuple[Charge, int]], float]] = []
        settled = True
        for _ in range(len(self._arrears)):
            now = monotonic()
            charges = self._arrears.take(now)
            if not charges:
                break
            key = state_key(charges[0][0])
            if self._link.node_of(key) != back and self._is_down(key):
                kept.append((charges, now))
                continue
            try:
                await self._calls.charge_arrears(charges)
            except RedisUnavailable as error:
                if not error.outcome_unknown:
                    kept.append((charges, now))
                settled = False
                break
            except RedisReplyError as error:
                log.warning("rate_limit.arrears_refused", error=error.code)
        for charges, now in kept:
            self._arrears.put_back(charges, now)
        return settled

"""The memory of refusals: a client that was refused is refused from here until its cost could fit.

It never refuses what Redis would allow: an entry ends at the instant that the script named, counted from
before the script was asked. What can change that instant (a reset, a refund, another limit) ends it too.

One log line for a refused client a minute, however often it asks.

The generation of the refusals: it advances when something has made room that no process can know of.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ..stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from .policies import (
    GENERATION_KEY,
    Charge,
    Decision,
    PreparedCharges,
    Verdict,
    new_verdict,
    state_key,
)


@dataclass(frozen=True, slots=True)
class _Refusal:
    verdict: Verdict
    cost: int
    fits_at: float
    releases_at: float


class DenyCache:
    """Refusals by charge, the oldest given up first.

    Args:
        max_entries: how many refusals are remembered.
    """

    def __init__(self, *, max_entries: int = 10_000) -> None:
        self._max_entries = max_entries
        self._refusals: OrderedDict[bytes, _Refusal] = OrderedDict()

    def __len__(self) -> int:
        return len(self._refusals)

    def remember(
        self, charge: Charge, verdict: Verdict, *, asked_at: float, wait_us: int, release_us: int
    ) -> None:
        """A charge was refused.

        Args:
            charge: what was refused.
            verdict: the answer.
            asked_at: monotonic seconds, before Redis was asked.
            wait_us: microseconds until the cost fits.
            release_us: microseconds until more units are free.
        """
        key = state_key(charge)
        self._refusals[key] = _Refusal(
            verdict, charge.cost, asked_at + wait_us / 1e6, asked_at + release_us / 1e6
        )
        self._refusals.move_to_end(key)
        if len(self._refusals) > self._max_entries:
            self._refusals.popitem(last=False)

    def find(self, charges: PreparedCharges, now: float) -> Decision | None:
        """The refusal of a request of which a charge, at least, is known not to fit; None if there is none.

        The other charges' verdicts say that they were not asked: allowed, nothing known to be left.
        """
        if not self._refusals:
            return None
        known: list[_Refusal | None] | None = None
        for index, key in enumerate(charges.keys):
            refusal = self._refusals.get(key)
            if refusal is not None and self._holds(refusal, key, charges[index], now):
                known = known or [None] * len(charges)
                known[index] = refusal
        if known is None:
            return None
        verdicts = [
            _not_asked(charge) if refusal is None else _still_refused(refusal, now)
            for charge, refusal in zip(charges, known, strict=True)
        ]
        return Decision(False, tuple(verdicts), "local-deny")

    def forget(self) -> None:
        """Forget all refusals: something may have made room."""
        self._refusals.clear()

    def _holds(self, refusal: _Refusal, key: bytes, charge: Charge, now: float) -> bool:
        """Whether a refusal is one of this charge, and of this instant."""
        known = refusal.verdict.policy
        if charge.policy.shadow or charge.cost < refusal.cost:
            return False
        if known is not charge.policy and known != charge.policy:
            return False
        if now >= refusal.fits_at:
            del self._refusals[key]
            return False
        return True


def _still_refused(refusal: _Refusal, now: float) -> Verdict:
    policy, group, subject, _, limit, remaining, *_ = refusal.verdict
    next_release_ms, wait_ms = ceil_ms(refusal.releases_at - now), ceil_ms(refusal.fits_at - now)
    return new_verdict(
        (policy, group, subject, False, limit, remaining, next_release_ms, wait_ms, True, False)
    )


def ceil_ms(seconds: float) -> int:
    """Whole milliseconds, rounded up; at least 0."""
    return max(0, -int(-seconds * 1000 // 1))


def _not_asked(charge: Charge) -> Verdict:
    policy = charge.policy
    return new_verdict(
        (policy, charge.group, charge.subject, True, policy.limit, 0, 0, 0, True, policy.shadow)
    )


log = structlog.get_logger(__name__)

QUIET_SECONDS = 60.0


class DenialLog:
    """Remembers who was mentioned lately.

    Args:
        max_clients: how many are remembered; the one mentioned longest ago is given up first.
    """

    def __init__(self, *, max_clients: int = 10_000) -> None:
        self._max_clients = max_clients
        self._mentioned: OrderedDict[tuple[str, str], float] = OrderedDict()

    def denied(self, decision: Decision, now: float) -> None:
        """A decision has refused its request, at `now` (monotonic seconds)."""
        for verdict in decision.violated:
            client = (verdict.policy.name, verdict.subject)
            last = self._mentioned.get(client)
            if last is not None and now - last < QUIET_SECONDS:
                continue
            self._mentioned[client] = now
            self._mentioned.move_to_end(client)
            if len(self._mentioned) > self._max_clients:
                self._mentioned.popitem(last=False)
            log.info(
                "rate_limit.denied",
                policy=verdict.policy.name,
                group=verdict.group,
                subject=verdict.subject,
                limit=verdict.limit,
                wait_ms=verdict.wait_ms,
                source=decision.source,
            )


LOOK_EVERY_SECONDS = 1.0
KEPT_MS = 24 * 3600 * 1000


class Generation:
    """A word in Redis that changes with every reset and refund.

    A process that refuses from memory looks at it once a second, so a reset by another process is in force
    everywhere a second later.

    Args:
        link: to Redis.
        on_change: called when it has changed: forget the refusals.
    """

    def __init__(self, link: RedisLink, on_change: Callable[[], None]) -> None:
        self._link = link
        self._on_change = on_change
        self._known: bytes | None = None
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None

    def look_again(self, now: float) -> None:
        """Look, in the background, unless that was done less than a second ago (monotonic seconds)."""
        if now - self._looked_at >= LOOK_EVERY_SECONDS and (self._look is None or self._look.done()):
            self._looked_at = now
            self._look = asyncio.get_running_loop().create_task(self._compare())

    async def advance(self) -> None:
        """Something has made room: refusals end, here at once and in the other processes within a second.

        Raises:
            RedisUnavailable: the other processes may not learn of it.
        """
        self._on_change()
        await self._link.execute("SET", GENERATION_KEY, secrets.token_hex(8), "PX", KEPT_MS)

    async def close(self) -> None:
        """Stop looking."""
        if self._look is not None and not self._look.done():
            self._look.cancel()
            await asyncio.wait([self._look])

    async def _compare(self) -> None:
        try:
            word: bytes | None = await self._link.execute("GET", GENERATION_KEY)
        except (RedisUnavailable, RedisReplyError):
            return  # refusals are kept until the instant that Redis named
        if word != self._known:
            self._known = word
            self._on_change()

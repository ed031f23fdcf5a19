"""What a process remembers of refusals: until when each holds, and when they end early.

A refused client is refused from memory until its cost could fit, so a flood from one client costs Redis nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..bounded_dict import BoundedDict
from ..stores.redis.events import get_logger
from ..stores.redis.link import Link, RedisReplyError, RedisUnavailable
from .headers import RefusalTexts
from .policies import EPOCH_KEY, Charge, Decision, PreparedCharges, Verdict, new_verdict, state_key

log = get_logger(__name__)

LOOK_EVERY_SECONDS = 1.0
EPOCH_KEPT_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class _Refusal:
    verdict: Verdict
    cost: int
    fits_at: float
    releases_at: float


class RememberedRefusal:
    """The refusal of a request whose charges are exhausted but for one, of which nothing is known, or the others fit.

    Args:
        decision: that was made from memory.
        index: of the charge that is exhausted.
        refusal: what is remembered of it.
    """

    __slots__ = ("index", "refusal", "subject", "texts", "verdict")

    def __init__(self, decision: Decision, index: int, refusal: _Refusal) -> None:
        self.index = index
        self.refusal = refusal
        self.verdict = decision.verdicts[index]
        self.subject = self.verdict.subject
        self.texts = RefusalTexts(decision)

    def wait_ms(self, now: float) -> int:
        """Return the milliseconds until the cost fits, at this instant (monotonic seconds)."""
        return ceil_ms(self.refusal.fits_at - now)


class DenyCache:
    """Refusals by charge, the oldest given up first.

    It never refuses what Redis would allow. An entry ends at the instant that the script named, counted from before
    the script was asked. Whatever can make room earlier (a reset, a refund, another limit) ends all entries.

    Args:
        max_entries: how many refusals are remembered.
    """

    def __init__(self, *, max_entries: int = 10_000) -> None:
        self._refusals: BoundedDict[bytes, _Refusal] = BoundedDict(max_entries)

    def __len__(self) -> int:
        return len(self._refusals)

    def remember(
        self, charge: Charge, verdict: Verdict, *, asked_at: float, wait_us: int, release_us: int
    ) -> None:
        """Remember that a charge was refused.

        Args:
            charge: what was refused.
            verdict: the answer.
            asked_at: monotonic seconds, before Redis was asked.
            wait_us: microseconds until the cost fits.
            release_us: microseconds until more units are free.
        """
        self._refusals[state_key(charge)] = _Refusal(
            verdict, charge.cost, asked_at + wait_us / 1e6, asked_at + release_us / 1e6
        )

    def find(self, charges: PreparedCharges, now: float) -> Decision | None:
        """Return the refusal of a request if at least one of its charges is known not to fit; else None.

        Charges not known to be exhausted are reported as allowed with zero remaining.
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
        decision = Decision(False, tuple(verdicts), "local-deny")
        index, *more = [index for index, refusal in enumerate(known) if refusal is not None]
        if (
            not more
            and (refusal := known[index]) is not None
            and (charges.refused is None or charges.refused.refusal is not refusal)
            and charges[index].policy.calendar is None
            and index not in charges.leases
        ):
            charges.refused = RememberedRefusal(decision, index, refusal)
        return decision

    def recall(self, charges: Sequence[Charge], now: float) -> RememberedRefusal | None:
        """Return the refusal that `find` has found for the same charges before, if it would find the same now."""
        if type(charges) is not PreparedCharges:
            return None
        remembered: RememberedRefusal | None = charges.refused
        if remembered is None or now >= remembered.refusal.fits_at:
            return None
        for index, key in enumerate(charges.keys):
            known = self._refusals.get(key)
            if known is not (remembered.refusal if index == remembered.index else None):
                return None
        return remembered

    def forget(self) -> None:
        """Forget all refusals, because something may have made room."""
        self._refusals.clear()

    def _holds(self, refusal: _Refusal, key: bytes, charge: Charge, now: float) -> bool:
        """Whether a refusal is one of this charge, at this instant."""
        refused = refusal.verdict.policy
        if charge.policy.shadow or charge.cost < refusal.cost:
            return False
        if refused is not charge.policy and refused != charge.policy:
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


def _not_asked(charge: Charge) -> Verdict:
    policy = charge.policy
    return new_verdict(
        (policy, charge.group, charge.subject, True, policy.limit, 0, 0, 0, True, policy.shadow)
    )


def ceil_ms(seconds: float) -> int:
    """Return whole milliseconds, rounded up; at least 0."""
    return max(0, -int(-seconds * 1000 // 1))


class RefusalEpoch:
    """Epoch of the cached refusals.

    It is advanced when a reset or refund frees capacity, so that every process drops its cache. It is a random word in
    Redis. A process that refuses from memory looks at it once a second; so what one process frees is in force
    everywhere a second later.

    Args:
        link: to Redis.
        on_change: called when it has changed: forget the refusals.
    """

    def __init__(self, link: Link, on_change: Callable[[], None]) -> None:
        self._link = link
        self._on_change = on_change
        self._seen: bytes | None = None
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None

    def look_again(self, now: float) -> None:
        """Look in the background, unless that was done less than a second ago (monotonic seconds)."""
        if now - self._looked_at >= LOOK_EVERY_SECONDS and (self._look is None or self._look.done()):
            self._looked_at = now
            self._look = asyncio.get_running_loop().create_task(self._compare())

    async def advance(self) -> None:
        """End the refusals: here at once, in the other processes within a second.

        Raises:
            RedisUnavailable: the other processes may keep theirs.
        """
        self._on_change()
        await self._link.execute("SET", EPOCH_KEY, secrets.token_hex(8), "PX", EPOCH_KEPT_MS)

    async def close(self) -> None:
        """Stop looking."""
        if self._look is not None and not self._look.done():
            self._look.cancel()
            await asyncio.wait([self._look])

    async def _compare(self) -> None:
        try:
            word: bytes | None = await self._link.execute("GET", EPOCH_KEY)
        except (RedisUnavailable, RedisReplyError):
            return  # refusals are kept until the instant that Redis named
        if word != self._seen:
            self._seen = word
            self._on_change()

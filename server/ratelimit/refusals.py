"""The memory of refusals: a client that was refused is refused from here until its cost could fit.

It never refuses what Redis would allow: an entry ends at the instant that the script named, counted from
before the script was asked. What can change that instant (a reset, a refund, another limit) ends it too.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from server.ratelimit.keys import state_key
from server.ratelimit.policies import Charge, Decision, Verdict, new_verdict
from server.ratelimit.prepared import PreparedCharges


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

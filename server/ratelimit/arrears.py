"""Arrears: what was admitted while Redis was away, to be charged when it is back."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import structlog

from server.ratelimit.keys import state_key
from server.ratelimit.policies import Charge

log = structlog.get_logger(__name__)

# Admissions of one client within this part of a window, counted from the first of them, are one entry, at the time
# of the last.
MERGED_PARTS = 64


class Arrears:
    """A bounded account of admissions, by client and policy.

    Args:
        max_entries: how many are kept; later ones are counted as lost.
    """

    def __init__(self, *, max_entries: int = 10_000) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, list[tuple[Charge, float, float]]] = OrderedDict()
        self._count = 0
        self._lost = 0

    def __len__(self) -> int:
        return self._count

    def add(self, charge: Charge, now: float) -> None:
        """A charge was admitted and not made, at `now` (monotonic seconds)."""
        entries = self._entries.setdefault(state_key(charge), [])
        if entries:
            last, first_at, _ = entries[-1]
            if (
                last.policy == charge.policy
                and now - first_at < charge.policy.window_ms / 1000 / MERGED_PARTS
            ):
                cost = min(last.cost + charge.cost, 2 * charge.policy.limit)
                entries[-1] = (replace(last, cost=cost), first_at, now)
                return
        if self._count >= self._max_entries:
            self._lost += 1
            return
        entries.append((charge, now, now))
        self._count += 1

    def take(self, now: float) -> list[tuple[Charge, int]]:
        """The charges of one client, oldest first, each with its age in microseconds; empty at the end."""
        if not self._entries:
            return []
        _, entries = self._entries.popitem(last=False)
        self._count -= len(entries)
        if self._lost and not self._entries:
            log.warning("rate_limit.arrears_lost", charges=self._lost)
            self._lost = 0
        return [(charge, max(0, int((now - at) * 1_000_000))) for charge, _, at in entries]

    def put_back(self, charges: list[tuple[Charge, int]], now: float) -> None:
        """Charges that could not be made after all."""
        for charge, age_us in charges:
            at = now - age_us / 1e6
            self._entries.setdefault(state_key(charge), []).append((charge, at, at))
            self._count += 1

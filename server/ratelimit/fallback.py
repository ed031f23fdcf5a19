"""Decides without Redis, by each policy's failure mode: open, closed or local."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from server.ratelimit.keys import state_key
from server.ratelimit.policies import Charge, Decision, OnFailure, Source, Verdict
from server.ratelimit.refusals import ceil_ms

CLOSED_WAIT_MS = 1000

# Admissions within this part of a window are one entry: it bounds the memory of a client with a high limit. They
# leave the window with the last of them, so a unit comes back at most one part late, and never early.
_PARTS = 64


@dataclass(slots=True)
class _Window:
    """One client's admissions by this process under one policy: [first, last, units] by monotonic seconds."""

    entries: deque[tuple[float, float, int]] = field(default_factory=deque)
    used: int = 0

    def expire(self, before: float) -> None:
        while self.entries and self.entries[0][1] <= before:
            self.used -= self.entries.popleft()[2]

    def add(self, at: float, units: int, *, merged_seconds: float) -> None:
        self.used += units
        if self.entries and at - self.entries[-1][0] < merged_seconds:
            first, _, before = self.entries.pop()
            self.entries.append((first, at, before + units))
        else:
            self.entries.append((at, at, units))

    def since(self, instant: float) -> Iterator[tuple[float, int]]:
        return ((last, units) for _, last, units in self.entries if last > instant)


class Fallback:
    """Decides without Redis, in memory.

    An `open` policy admits up to its limit in this process. A `local` one has its limit shared out among the live
    workers, and starts from the use that Redis has last reported: all processes together admit no more than the
    limit, unless there are more workers than units, since one unit a worker is the least.

    Args:
        workers: how many processes share the limits at the moment.
        max_clients: how many clients are counted; the one unseen for longest is given up first.
    """

    def __init__(self, *, workers: Callable[[], int] = lambda: 1, max_clients: int = 10_000) -> None:
        self._workers = workers
        self._max_clients = max_clients
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def learn(self, charge: Charge, remaining: int, now: float) -> None:
        """Redis reported how much a `local` policy has left: where counting starts when it is down."""
        key = state_key(charge)
        self._known[key] = (now, charge.policy.limit - remaining)
        self._known.move_to_end(key)
        if len(self._known) > self._max_clients:
            self._known.popitem(last=False)

    def decide(self, charges: Sequence[Charge], now: float) -> Decision:
        """All or nothing under the policies' failure modes, at `now` (monotonic seconds)."""
        verdicts = tuple(self._verdict(charge, now) for charge in charges)
        enforced = [
            (charge, verdict) for charge, verdict in zip(charges, verdicts, strict=True) if not verdict.shadow
        ]
        refusing = {charge.policy.on_failure for charge, verdict in enforced if not verdict.allowed}
        if refusing:
            return Decision(False, verdicts, _strictest(refusing))
        for charge, verdict in enforced:
            units, part = min(charge.cost, verdict.limit), charge.policy.window_ms / 1000 / _PARTS
            self._window(charge).add(now, units, merged_seconds=part)
        return Decision(True, verdicts, _strictest({charge.policy.on_failure for charge, _ in enforced}))

    def _verdict(self, charge: Charge, now: float) -> Verdict:
        policy = charge.policy
        limit, remaining, release_ms, wait_ms = policy.limit, policy.limit - charge.cost, policy.window_ms, 0
        retryable = True
        if policy.shadow:
            allowed = True
        elif policy.on_failure == "closed":
            allowed, remaining, release_ms, wait_ms = False, 0, CLOSED_WAIT_MS, CLOSED_WAIT_MS
        else:
            if policy.on_failure == "local":
                limit = max(1, limit // max(1, self._workers()))
            seconds = policy.window_ms / 1000
            use = self._use(charge, limit, now, seconds)
            used = sum(units for _, units in use)
            cost = min(charge.cost, limit)
            retryable = charge.cost <= policy.limit
            allowed = retryable and used + cost <= limit
            remaining = limit - used - (cost if allowed else 0)
            if use:
                release_ms = ceil_ms(use[0][0] + seconds - now)
            if not allowed and retryable:
                wait_ms = _wait_ms(use, used + cost - limit, seconds, now)
        return Verdict(
            policy,
            charge.group,
            charge.subject,
            allowed=allowed,
            limit=limit,
            remaining=max(0, remaining),
            next_release_ms=release_ms,
            wait_ms=wait_ms,
            retryable=retryable,
            shadow=policy.shadow,
        )

    def _use(self, charge: Charge, limit: int, now: float, seconds: float) -> list[tuple[float, int]]:
        """What counts at present, oldest first: each instant with its units.

        What was admitted here before Redis reported a use is part of that use, if Redis was told of it.
        """
        window = self._window(charge)
        window.expire(now - seconds)
        mine = list(window.since(now - seconds))
        known_at, known = self._known.get(state_key(charge), (now - seconds, 0))
        if charge.policy.on_failure != "local" or known_at <= now - seconds:
            return mine
        seed = min(limit, -(-known * limit // charge.policy.limit))
        newer = list(window.since(known_at))
        if window.used >= seed + sum(units for _, units in newer):
            return mine
        return [(known_at, seed), *newer]

    def _window(self, charge: Charge) -> _Window:
        key = state_key(charge)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
            if len(self._windows) > self._max_clients:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        return window


def _wait_ms(use: Sequence[tuple[float, int]], surplus: int, seconds: float, now: float) -> int:
    for at, units in use:
        surplus -= units
        if surplus <= 0:
            return ceil_ms(at + seconds - now)
    return ceil_ms(seconds)


def _strictest(modes: AbstractSet[OnFailure]) -> Source:
    """What the decision is counted as: closed before local, and open where nothing else had a say."""
    if "closed" in modes:
        return "closed"
    return "fallback" if "local" in modes else "open"

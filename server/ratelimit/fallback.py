"""What holds while Redis does not answer: each policy's failure mode, open, closed or local."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from server.ratelimit.deny_cache import ceil_ms
from server.ratelimit.keys import state_key
from server.ratelimit.policies import Charge, Decision, Source, Verdict

CLOSED_WAIT_MS = 1000


@dataclass(slots=True)
class _Window:
    """One client's admissions by this process, under one policy: (monotonic seconds, units), oldest first."""

    entries: deque[tuple[float, int]] = field(default_factory=deque)
    used: int = 0

    def expire(self, before: float) -> None:
        while self.entries and self.entries[0][0] <= before:
            self.used -= self.entries.popleft()[1]

    def add(self, at: float, units: int) -> None:
        self.entries.append((at, units))
        self.used += units


class Fallback:
    """Decides without Redis.

    A `local` policy is counted in this process, with its limit shared out among the live workers and the use
    last known from Redis as a start. All processes together admit no more than the limit, unless there are
    more workers than units: one unit a worker is the least.

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
        """Redis said how much a `local` policy has left: where counting starts when it goes away."""
        key = state_key(charge)
        self._known[key] = (now, charge.policy.limit - remaining)
        self._known.move_to_end(key)
        if len(self._known) > self._max_clients:
            self._known.popitem(last=False)

    def forget(self) -> None:
        """Redis is back and knows better."""
        self._windows.clear()

    def decide(self, charges: Sequence[Charge], now: float) -> Decision:
        """All or nothing under the policies' failure modes, at `now` (monotonic seconds)."""
        verdicts = tuple(self._verdict(charge, now) for charge in charges)
        allowed = all(verdict.allowed or verdict.shadow for verdict in verdicts)
        if not allowed:
            return Decision(False, verdicts, _refused_by(charges, verdicts))
        for charge in charges:
            if charge.policy.on_failure == "local" and not charge.policy.shadow:
                self._window(charge, now).add(now, min(charge.cost, self._share(charge)))
        modes = {charge.policy.on_failure for charge in charges if not charge.policy.shadow}
        return Decision(True, verdicts, "fallback" if "local" in modes else "open")

    def _verdict(self, charge: Charge, now: float) -> Verdict:
        policy = charge.policy
        limit, remaining, release_ms, wait_ms = policy.limit, policy.limit - charge.cost, policy.window_ms, 0
        retryable = True
        if policy.shadow or policy.on_failure == "open":
            allowed = True
        elif policy.on_failure == "closed":
            allowed, remaining, release_ms, wait_ms = False, 0, CLOSED_WAIT_MS, CLOSED_WAIT_MS
        else:
            window, limit = self._window(charge, now), self._share(charge)
            cost = min(charge.cost, limit)
            retryable = charge.cost <= policy.limit
            allowed = retryable and window.used + cost <= limit
            remaining = limit - window.used - (cost if allowed else 0)
            if window.entries:
                release_ms = ceil_ms(window.entries[0][0] + policy.window_ms / 1000 - now)
            if not allowed and retryable:
                wait_ms = _wait_ms(window, window.used + cost - limit, policy.window_ms, now)
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

    def _share(self, charge: Charge) -> int:
        return max(1, charge.policy.limit // max(1, self._workers()))

    def _window(self, charge: Charge, now: float) -> _Window:
        key = state_key(charge)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
            known_at, used = self._known.get(key, (now, 0))
            share = self._share(charge)
            start = min(share, -(-used * share // charge.policy.limit))
            if start > 0:
                window.add(known_at, start)
            if len(self._windows) > self._max_clients:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        window.expire(now - charge.policy.window_ms / 1000)
        return window


def _wait_ms(window: _Window, surplus: int, window_ms: int, now: float) -> int:
    for at, units in window.entries:
        surplus -= units
        if surplus <= 0:
            return ceil_ms(at + window_ms / 1000 - now)
    return window_ms


def _refused_by(charges: Sequence[Charge], verdicts: Sequence[Verdict]) -> Source:
    refused = {
        charge.policy.on_failure
        for charge, verdict in zip(charges, verdicts, strict=True)
        if not verdict.allowed and not verdict.shadow
    }
    return "closed" if "closed" in refused else "fallback"

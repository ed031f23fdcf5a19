"""What a limiter reports of its decisions: counters for whoever wants them, and a line in the log for a refusal."""

from __future__ import annotations

from collections.abc import Callable

from ..bounded_dict import BoundedDict
from ..stores.redis.events import get_logger
from .policies import SOURCES, Decision, PreparedCharges, Source, Verdict

log = get_logger(__name__)

QUIET_SECONDS = 60.0

# An admission that leaves less than a fifth of the limit is near it.
NEAR_LIMIT_PARTS = 5

OnDecision = Callable[[str, str, str], None]


class Reports:
    """Counts and logs decisions.

    Args:
        on_decision: as of a `Limiter`.
        on_near_limit: likewise.
        on_cost: likewise.
    """

    def __init__(
        self,
        on_decision: OnDecision,
        on_near_limit: Callable[[str], None],
        on_cost: Callable[[str, int], None],
    ) -> None:
        self._on_decision = on_decision
        self._on_near_limit = on_near_limit
        self.on_cost = on_cost
        self._denials = DenialLog()
        self.sources: dict[Source, int] = dict.fromkeys(SOURCES, 0)

    def decided(self, charges: PreparedCharges, decision: Decision, now: float) -> None:
        """Report a decision that was made at `now` (monotonic seconds)."""
        source, on_decision = decision.source, self._on_decision
        self.sources[source] += 1
        charged = decision.allowed and source == "redis"
        for policy, _, _, allowed, limit, remaining, _, _, _, shadow in decision.verdicts:
            if allowed:
                if charged and remaining * NEAR_LIMIT_PARTS < limit:
                    self._on_near_limit(policy.name)
                # A refusal from memory asked no other policy.
                if source != "local-deny":
                    on_decision(policy.name, "allowed", source)
            else:
                on_decision(policy.name, "shadow-denied" if shadow else "denied", source)
        if not decision.allowed:
            self._denials.denied(decision, now)
        elif charged and charges.cost_more:
            for charge, verdict in zip(charges, decision.verdicts, strict=True):
                if verdict.allowed and charge.cost > 1:
                    self.on_cost(charge.policy.name, charge.cost - 1)

    def recalled(self, verdict: Verdict, now: float) -> bool:
        """Report a refusal from memory by one policy, unless it has to be logged; returns whether it was reported."""
        if not self._denials.is_quiet(verdict, now):
            return False
        self.sources["local-deny"] += 1
        self._on_decision(verdict.policy.name, "denied", "local-deny")
        return True


class DenialLog:
    """Logs refusals: one line a minute for each client and policy, however often the client asks.

    Args:
        max_clients: how many are remembered; the one logged longest ago is given up first.
    """

    def __init__(self, *, max_clients: int = 10_000) -> None:
        self._logged_at: BoundedDict[tuple[str, str], float] = BoundedDict(max_clients)

    def is_quiet(self, verdict: Verdict, now: float) -> bool:
        """Whether a refusal at `now` (monotonic seconds) is not logged, because its client was logged lately."""
        last = self._logged_at.get((verdict.policy.name, verdict.subject))
        return last is not None and now - last < QUIET_SECONDS

    def denied(self, decision: Decision, now: float) -> None:
        """Log a refusal that was made at `now` (monotonic seconds), unless its client was logged lately."""
        for verdict in decision.violated:
            if self.is_quiet(verdict, now):
                continue
            self._logged_at[verdict.policy.name, verdict.subject] = now
            log.info(
                "rate_limit.denied",
                policy=verdict.policy.name,
                group=verdict.group,
                subject=verdict.subject,
                limit=verdict.limit,
                wait_ms=verdict.wait_ms,
                source=decision.source,
            )

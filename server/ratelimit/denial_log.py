"""One log line for a refused client a minute, however often it asks."""

from __future__ import annotations

from collections import OrderedDict

import structlog

from server.ratelimit.policies import Decision

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

"""The breaker: after repeated failures Redis is not asked any more, until a probe has found it well."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)

FIRST_PROBE_SECONDS = 0.1
LONGEST_PROBE_SECONDS = 1.0


class Breaker:
    """Closed while Redis answers; open, and probing in the background, while it does not.

    Args:
        probe: returns when Redis can serve decisions again, and raises or returns False while it can't.
        failures_to_open: how many failures in a row open it.
    """

    def __init__(self, probe: Callable[[], Awaitable[bool]], *, failures_to_open: int = 5) -> None:
        self._probe = probe
        self._failures_to_open = failures_to_open
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether Redis must not be asked."""
        return self._probing is not None

    def succeeded(self) -> None:
        """Redis has answered."""
        self._failures = 0

    def failed(self, reason: str) -> None:
        """Redis has not answered, or not in time."""
        self._failures += 1
        if self._failures >= self._failures_to_open and self._probing is None:
            log.warning("rate_limit.redis_away", error=reason, failures=self._failures)
            self._probing = asyncio.get_running_loop().create_task(self._probe_until_well())

    async def close(self) -> None:
        """Stop probing."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    async def _probe_until_well(self) -> None:
        pause_seconds = FIRST_PROBE_SECONDS
        while True:
            # Jittered, so that the workers do not all come back at one instant.
            await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            if await self._probe():
                break
            pause_seconds = min(2 * pause_seconds, LONGEST_PROBE_SECONDS)
        self._failures = 0
        self._probing = None
        log.info("rate_limit.redis_back")

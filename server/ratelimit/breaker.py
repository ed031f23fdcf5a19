"""The breaker: after repeated failures a server is not asked any more, until a probe has succeeded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

FIRST_PROBE_SECONDS = 0.1
LONGEST_PROBE_SECONDS = 1.0
FAILURES_TO_OPEN = 5


class Breaker:
    """Closed at first; open after failures in a row, and then probing in the background.

    Args:
        probe: returns True when the server can serve decisions again.
        on_close: called when a probe has succeeded.
    """

    def __init__(self, probe: Callable[[], Awaitable[bool]], *, on_close: Callable[[], None]) -> None:
        self._probe = probe
        self._on_close = on_close
        self.failures = 0
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server must not be asked."""
        return self._probing is not None

    def failed(self) -> bool:
        """The server has not answered, or not in time; whether this has opened the breaker."""
        self.failures += 1
        if self.failures < FAILURES_TO_OPEN or self._probing is not None:
            return False
        self._probing = asyncio.get_running_loop().create_task(self._probe_until_well())
        return True

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
        self._on_close()

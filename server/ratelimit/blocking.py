"""The limiter for code without asyncio: the same limiter, on an event loop in a thread of its own.

```python
with BlockingLimiter.from_url("redis://localhost") as limiter:
    decision = limiter.hit("user:42", "60/minute")
```
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, Self, TypeVar

from .limiter import Limiter
from .policies import Charge, Decision, Policy

Result = TypeVar("Result")


class BlockingLimiter:
    """Calls a limiter from any thread, and waits for its answers; threads that ask at once share its connection.

    Args:
        limiter: not started; this starts and closes it.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return a limiter with a link of its own; the arguments are those of `Limiter.from_url`."""
        return cls(Limiter.from_url(url, **options))

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rate limiter", daemon=True)
        self._thread.start()
        self._wait_for(self._limiter.__aenter__())
        return self

    def __exit__(self, *_error: object) -> None:
        self._wait_for(self._limiter.__aexit__())
        loop, thread, self._loop = self._loop, self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def hit(
        self,
        subject: str,
        *policies: Policy | str,
        cost: int = 1,
        group: str = "",
        request_id: str | None = None,
    ) -> Decision:
        """See `Limiter.hit`."""
        return self._wait_for(
            self._limiter.hit(subject, *policies, cost=cost, group=group, request_id=request_id)
        )

    def peek(self, charges: Sequence[Charge]) -> Decision:
        """See `Limiter.peek`."""
        return self._wait_for(self._limiter.peek(charges))

    def refund(self, charges: Sequence[Charge], *, request_id: str) -> int:
        """See `Limiter.refund`."""
        return self._wait_for(self._limiter.refund(charges, request_id=request_id))

    def reset(self, subject: str, charges: Sequence[Charge]) -> int:
        """See `Limiter.reset`."""
        return self._wait_for(self._limiter.reset(subject, charges))

    def block(self, subject: str, *, duration_ms: int) -> None:
        """See `Limiter.block`."""
        self._wait_for(self._limiter.block(subject, duration_ms=duration_ms))

    def _wait_for(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the limiter was not started: use it in a with block")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

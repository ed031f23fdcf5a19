"""Rate limits for ASGI applications (Starlette, FastAPI, Quart, Litestar): a middleware.

```python
app = RateLimitMiddleware(app, limiter, "100/minute")
```
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from time import time
from typing import Any

from .headers import DraftVersion, pairs_of, rate_limit_headers, refusal_of
from .limiter import Limiter
from .policies import Decision, Policies, PreparedCharges, charges_of, parse_policies
from .subjects import subject_of_peer

__all__ = ["RateLimitMiddleware", "client_address"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def client_address(scope: Scope) -> str | None:
    """Return the subject of the connection's peer; IPv6 by /64. Behind a proxy that is the proxy: use another."""
    client = scope.get("client")
    return None if client is None else subject_of_peer(client[0])


class RateLimitMiddleware:
    """Charges each HTTP request, or refuses it with 429.

    Args:
        app: the application.
        limiter: decides; started by the application (`async with limiter:` in its lifespan).
        policies: one or more, text or `Policy`: `100/minute; 1000/hour`.
        subject: returns what a request is charged to, by its scope; None if the request is not limited.
        group: of what is counted apart from other groups.
        version: of the draft whose fields are sent.

    Raises:
        ValueError: a policy is none.
    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        policies: Policies,
        *,
        subject: Callable[[Scope], str | None] = client_address,
        group: str = "",
        version: DraftVersion = 11,
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._policies = parse_policies(policies)
        self._subject = subject
        self._group, self._version = group, version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        subject = self._subject(scope) if scope["type"] == "http" else None
        if subject is None:
            await self._app(scope, receive, send)
            return
        charges = charges_of(subject, *self._policies, group=self._group)
        decision = await self._limiter.decide(charges)
        if not decision.allowed:
            await self._refuse(decision, charges, send)
            return
        headers = rate_limit_headers(decision, now=time(), version=self._version, charges=charges)

        async def send_with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_encoded(headers)]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    async def _refuse(self, decision: Decision, charges: PreparedCharges, send: Send) -> None:
        lines, problem = refusal_of(
            decision, now=time(), jitter=secrets.token_hex(8), version=self._version, charges=charges
        )
        headers, body = pairs_of(lines), json.dumps(problem).encode()
        length, kind = str(len(body)), "application/problem+json"
        headers += [("Content-Type", kind), ("Content-Length", length), ("Cache-Control", "no-store")]
        await send({"type": "http.response.start", "status": 429, "headers": _encoded(headers)})
        await send({"type": "http.response.body", "body": body})


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]

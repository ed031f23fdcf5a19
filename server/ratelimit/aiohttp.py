"""Rate limits for aiohttp applications: a middleware, and a decorator for handlers.

```python
app = web.Application(middlewares=[rate_limit(limiter, "100/minute; 1000/hour")])
```
"""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from time import time
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .headers import DraftVersion, pairs_of, rate_limit_headers, refusal_of
from .limiter import Limiter
from .limits import Charging
from .policies import Charge, Decision, Policies, Verdict, charges_of, parse_policies
from .settlement import Charged
from .subjects import subject_of_peer

__all__ = ["LIMITER", "VERDICTS", "client_address", "limited", "limiter_context", "rate_limit"]

SubjectOf = Callable[[web.Request], str | Awaitable[str | None] | None]
CostOf = Callable[[web.Request], int]

LIMITER: Final = web.AppKey("limiter", Limiter)
"""Where `limited` finds an application's limiter, and `rate_limit` if it was given none."""

VERDICTS: Final = web.RequestKey("rate_limit_verdicts", tuple[Verdict, ...])
"""The verdicts on a request, of a middleware and of a decorator together."""

_CHARGES: Final = web.RequestKey("rate_limit_charges", tuple[Charge, ...])


def client_address(request: web.Request) -> str | None:
    """Return the subject of the connection's peer; IPv6 by /64. Behind a proxy that is the proxy: use another."""
    return subject_of_peer(request.remote)


def limiter_context(url: str, **options: Any) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a cleanup context that opens the application's limiter: `app.cleanup_ctx.append(limiter_context(url))`.

    Args:
        url: as for `Limiter.from_url`.
        options: the same.
    """

    async def context(app: web.Application) -> AsyncIterator[None]:
        async with Limiter.from_url(url, **options) as limiter:
            app[LIMITER] = limiter
            yield

    return context


def rate_limit(
    limiter: Limiter | None,
    policies: Policies,
    *,
    subject: SubjectOf = client_address,
    cost: int | CostOf = 1,
    group: str = "",
    charge: Charging = "all",
    version: DraftVersion = 11,
) -> Middleware:
    """Return a middleware that charges each request, or refuses it with 429.

    Args:
        limiter: decides; None for the application's own (`LIMITER`).
        policies: one or more, text or `Policy`: `100/minute; 1000/hour`.
        subject: returns what a request is charged to; None if the request is not limited.
        cost: units of a request.
        group: of what is counted apart from other groups.
        charge: which requests stay charged by their response: all, or only `failures` or `successes`.
        version: of the draft whose fields are sent.

    Raises:
        ValueError: a policy is none.
    """
    guard = _Guard(policies, subject, cost, group, charge, version)

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await guard.run(limiter, request, handler)

    return limit


def limited(
    policies: Policies,
    *,
    by: SubjectOf = client_address,
    cost: int | CostOf = 1,
    group: str | None = None,
    charge: Charging = "all",
    limiter: Limiter | None = None,
) -> Callable[[Handler], Handler]:
    """Limit one handler: `@limited("60/minute", by=user_of, cost=5)`.

    Args:
        policies: as for `rate_limit`.
        by: returns what a request is charged to; None if the request is not limited.
        cost: units of a request.
        group: by default the handler's name: each handler counts apart.
        charge: as for `rate_limit`.
        limiter: by default the application's (`LIMITER`).

    Raises:
        ValueError: a policy is none.
    """

    def decorate(handler: Handler) -> Handler:
        name = f"{handler.__module__}.{handler.__qualname__}" if group is None else group
        guard = _Guard(policies, by, cost, name, charge, 11)

        @functools.wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            return await guard.run(limiter, request, handler)

        return guarded

    return decorate


class _Guard:
    """Charges requests in one way; the arguments are those of `rate_limit`."""

    def __init__(
        self,
        policies: Policies,
        subject: SubjectOf,
        cost: int | CostOf,
        group: str,
        charge: Charging,
        version: DraftVersion,
    ) -> None:
        self._policies = parse_policies(policies)
        self._subject = subject
        self._cost = cost
        self._group = group
        self._charge = charge
        self._version = version

    async def run(
        self, limiter: Limiter | None, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Return the handler's response, or the refusal."""
        subject = self._subject(request)
        if subject is not None and not isinstance(subject, str):
            subject = await subject
        if subject is None:
            return await handler(request)
        limiter = request.config_dict[LIMITER] if limiter is None else limiter
        cost = self._cost if isinstance(self._cost, int) else self._cost(request)
        charges = charges_of(subject, *self._policies, cost=cost, group=self._group)
        request_id = None if self._charge == "all" and not charges.leases else secrets.token_hex(16)
        decision = await limiter.decide(charges, request_id=request_id, is_new=True)
        request[_CHARGES] = (*request.get(_CHARGES, ()), *charges)
        verdicts = request[VERDICTS] = (*request.get(VERDICTS, ()), *decision.verdicts)
        shown = Decision(decision.allowed, verdicts, decision.source)
        if not decision.allowed:
            return self._refusal(shown, request[_CHARGES])
        if request_id is None:
            return await self._answered(request, handler, decision)
        charged = Charged(limiter, charges, request_id, decision, self._charge)
        return await charged.run(
            lambda: self._answered(request, handler, decision), answers=(web.HTTPException,)
        )

    async def _answered(
        self, request: web.Request, handler: Handler, decision: Decision
    ) -> web.StreamResponse:
        """Return the handler's response with the headers."""
        try:
            response = await handler(request)
        except web.HTTPException as error:
            self._write(error.headers, request, decision)
            raise
        if not response.prepared:
            self._write(response.headers, request, decision)
        return response

    def _write(self, headers: Any, request: web.Request, decision: Decision) -> None:
        if "Retry-After" in headers and "RateLimit" in headers:
            return  # of a refusal further inside
        shown = Decision(decision.allowed, request[VERDICTS], decision.source)
        charges = request[_CHARGES]
        fields = rate_limit_headers(shown, now=time(), version=self._version, charges=charges)
        headers.update(fields)

    def _refusal(self, decision: Decision, charges: tuple[Charge, ...]) -> web.Response:
        lines, problem = refusal_of(
            decision, now=time(), jitter=secrets.token_hex(8), version=self._version, charges=charges
        )
        return web.Response(
            status=problem["status"],
            text=json.dumps(problem),
            content_type="application/problem+json",
            headers={**dict(pairs_of(lines)), "Cache-Control": "no-store"},
        )

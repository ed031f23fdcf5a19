"""One decision of the limiter for each request, under all policies of its route group at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter, time
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from server.api.fields import LONGEST_EMAIL
from server.api.requests import read_json_value
from server.api.responses import problem_response
from server.api.state import RequestState, state_of
from server.domain.accounts import normal_email
from server.errors import MasteryError
from server.middleware.errors import note_error_code
from server.middleware.rules import LookUp, Rules, rule_of
from server.ratelimit import Limiter
from server.ratelimit.config_watch import RateLimitsFile
from server.ratelimit.headers import problem_of, rate_limit_headers


def rate_limit(
    limiter: Limiter,
    rate_limits: RateLimitsFile,
    rules: Rules,
    *,
    on_refusal: Callable[[str], None] | None = None,
) -> Middleware:
    """The middleware that charges a request, or refuses it.

    Whatever comes out in the end carries the limiter's headers. `on_refusal` is told the subject of each refusal.
    """

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        rule = rule_of(request, rules)
        group = rule.limits
        if group is None:
            return await handler(request)
        limits = rate_limits.current
        state = state_of(request)
        caller = state.caller
        charges = limits.charges_of(
            group,
            user_key=None if caller is None else caller.user_key,
            plan=None if caller is None else caller.plan,
            client_ip=state.client_ip,
            address=state.address,
            email=await _email_of(request) if limits.counts_email(group) else None,
        )
        meanwhile = None
        if rule.look_up is not None and caller is not None:
            meanwhile = partial(_look_up, rule.look_up, request, state)
        began = perf_counter()
        try:
            # Without a request id of the client's: who repeats it must not get the first verdict again for free.
            decision = await limiter.decide(charges, meanwhile=meanwhile)
        finally:
            state.timings.add("limit", "rate_limit.decide", began)
        request_id = state.request_id
        state.limit_headers = rate_limit_headers(decision, now=time(), jitter=request_id)
        if decision.allowed:
            state.limit_outcome = "allowed"
            return await handler(request)
        state.limit_outcome = "denied"
        if on_refusal is not None:
            on_refusal(decision.violated[0].subject)
        note_error_code(request, "rate_limited")
        return _refusal(problem_of(decision, jitter=request_id), request_id)

    return limit


def _look_up(look_up: LookUp, request: web.Request, state: RequestState) -> None:
    try:  # noqa: SIM105 - suppress() costs ten times as much, on every request
        state.looked_up = look_up(request)
    except MasteryError:
        pass  # the handler will say what is wrong, once the request is charged


def _refusal(problem: dict[str, Any], request_id: str) -> web.Response:
    return problem_response(
        status=problem.pop("status"),
        title=problem.pop("title"),
        detail=problem.pop("detail"),
        code="rate_limited",
        request_id=request_id,
        extensions=problem,
    )


async def _email_of(request: web.Request) -> str | None:
    """The address that a login or a registration names; what is wrong with the body, its handler will say."""
    try:
        body = await read_json_value(request)
    except MasteryError:
        return None
    email = body.get("email") if isinstance(body, dict) else None
    # A longer one is refused by the handler: to put it into its normal form may take long.
    if not isinstance(email, str) or not 0 < len(email.strip()) <= LONGEST_EMAIL:
        return None
    return normal_email(email)

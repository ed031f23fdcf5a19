"""One decision of the limiter for each request, under all policies of its route group at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from time import perf_counter, time
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from server.api.responses import problem_response
from server.api.rules import LookUp, Rules, rule_of
from server.api.state import RequestState, state_of
from server.errors import MasteryError
from server.middleware.errors import note_error_code
from server.ratelimit import Limiter
from server.ratelimit.headers import problem_of, rate_limit_headers, waits_of
from server.ratelimit.limits import stays_charged
from server.ratelimit.policies import PreparedCharges
from server.ratelimit.reloading import RateLimitsFile
from server.stores.redis.link import RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

_OUR_FAULT: Final = HTTPStatus.INTERNAL_SERVER_ERROR.value


def rate_limit(
    limiter: Limiter,
    rate_limits: RateLimitsFile,
    rules: Rules,
    *,
    on_refusal: Callable[[str], None] | None = None,
) -> Middleware:
    """The middleware that charges a request, or refuses it.

    In a group that charges failures (or successes) alone, a request is charged before its handler runs, so that many
    at once can't exceed the limit together; the charge is refunded once the status is known. Every response gets the
    limiter's headers.

    Args:
        limiter: decides.
        rate_limits: the limits in force.
        rules: which group each route belongs to.
        on_refusal: called with the subject of each refusal.
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
        charges = limits.charges_for(
            group,
            user_key=None if caller is None else caller.user_key,
            plan=None if caller is None else caller.plan,
            client_ip=state.client_ip,
            address=state.address,
            named=await rule.name(request)
            if rule.name is not None and limits.counts_by_name(group)
            else None,
        )
        charging = limits.charged_by_answer.get(group)
        charge_id = None if charging is None else secrets.token_hex(16)
        prefetch = None
        if rule.look_up is not None and caller is not None:
            prefetch = partial(_look_up, rule.look_up, request, state)
        began = perf_counter()
        try:
            # Never the client's request id: repeating it would return the first verdict without being charged.
            decision = await limiter.decide(charges, request_id=charge_id, is_new=True, prefetch=prefetch)
        finally:
            state.timings.add("limit", "rate_limit.decide", began)
        request_id = state.request_id
        waits = None if decision.allowed else waits_of(decision, jitter=request_id)
        state.limit_headers = rate_limit_headers(decision, now=time(), waits=waits)
        if decision.allowed:
            state.limit_outcome = "allowed"
            # Only Redis refunds. What is counted without it stays counted, which errs on the safe side.
            if charging is None or charge_id is None or decision.source != "redis":
                return await handler(request)
            try:
                response = await handler(request)
            except Exception as error:  # a cancelled request stays charged: it may have had its effect
                if not stays_charged(charging, _status_of(error)):
                    await _refund(limiter, charges, charge_id)
                raise
            if not stays_charged(charging, response.status):
                await _refund(limiter, charges, charge_id)
            return response
        state.limit_outcome = "denied"
        if on_refusal is not None:
            on_refusal(decision.violated[0].subject)
        note_error_code(request, "rate_limited")
        return _refusal(problem_of(decision, waits=waits), request_id)

    return limit


def _look_up(look_up: LookUp, request: web.Request, state: RequestState) -> None:
    try:  # noqa: SIM105 - suppress() costs ten times as much, on every request
        state.looked_up = look_up(request)
    except MasteryError:
        pass  # the handler raises it again, once the request is charged


def _refusal(problem: dict[str, Any], request_id: str) -> web.Response:
    return problem_response(
        status=problem.pop("status"),
        title=problem.pop("title"),
        detail=problem.pop("detail"),
        code="rate_limited",
        request_id=request_id,
        extensions=problem,
    )


def _status_of(error: Exception) -> int:
    """The status that an error is answered with."""
    return error.status if isinstance(error, MasteryError | web.HTTPException) else _OUR_FAULT


async def _refund(limiter: Limiter, charges: PreparedCharges, charge_id: str) -> None:
    """Refund a request's charges before its response is sent, so that the client's next request has them.

    If Redis does not answer, they stay until the window has passed: the client has less left than it should.
    """
    try:
        await limiter.refund(charges, request_id=charge_id)
    except (RedisUnavailable, RedisReplyError) as error:
        log.warning("rate_limit.refund_lost", error=str(error))

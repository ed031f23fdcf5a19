"""What a request passes before its handler: who is calling, the rate limit, the role that its route requires.

The limiter decides once for each request, under all policies of its route group at once. The limits depend on the
caller's account, so a request is charged before its role is checked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from time import perf_counter, time
from typing import Any, Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from server.api.responses import PROBLEM_LINES, problem_response
from server.api.services import (
    SETTLED_COST,
    LookUp,
    RequestState,
    Rule,
    Rules,
    checked_caller_of,
    rule_of,
    state_of,
)
from server.api.whole_response import WholeResponse
from server.domain.identity.callers import Callers
from server.errors import Forbidden, MasteryError, NetworkBlocked
from server.middleware.errors import note_error_code
from server.ratelimit import Limiter
from server.ratelimit.aiohttp import release_at_end
from server.ratelimit.headers import problem_of, rate_limit_lines, waits_of
from server.ratelimit.limits import Charging, RateLimits, stays_charged
from server.ratelimit.policies import Decision, PreparedCharges
from server.ratelimit.reloading import RateLimitsFile
from server.stores.redis.link import RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

_ID: Final = "\ue000"
_OUR_FAULT: Final = HTTPStatus.INTERNAL_SERVER_ERROR.value


def recognise(request: web.Request, state: RequestState, callers: Callers) -> str | None:
    """Set the caller if its Bearer token was verified a moment ago.

    Returns:
        a token that is still to be verified, by `identify`; None if there is none.
    """
    credentials = request.headers.get(hdrs.AUTHORIZATION)
    if credentials is None:
        return None
    scheme, _, token = credentials.partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.strip()
    caller = callers.recall(token)
    if caller is None:
        return token
    state.caller = caller
    state.context.user_id = caller.user_key
    return None


async def identify(state: RequestState, rule: Rule, token: str, callers: Callers) -> None:
    """Verify a token, and set the caller, or why it was refused.

    A request with an invalid token is treated as anonymous: rate limited by address, and answered 401 only on routes
    that require a role.
    """
    try:
        caller = await callers.identify(token, patient=not rule.accepts_unchecked)
    except MasteryError as refusal:
        state.refusal = refusal
    else:
        state.caller = caller
        state.context.user_id = caller.user_key


def authorize(request: web.Request, state: RequestState, rule: Rule) -> None:
    """Let a request pass to its handler if its caller has the role that the route requires.

    Raises:
        Unauthenticated, Forbidden: it has not; or what was found wrong with its token.
    """
    required = rule.role
    if required is not None:
        caller = state.caller
        if caller is None or not (caller.is_checked or rule.accepts_unchecked):
            caller = checked_caller_of(request)  # raises what is missing
        if required == "admin" and caller.role != "admin":
            raise Forbidden


def admission(
    callers: Callers,
    limiter: Limiter,
    rate_limits: RateLimitsFile,
    rules: Rules,
    *,
    on_refusal: Callable[[str], None] = lambda _subject: None,
) -> Middleware:
    """The middleware that lets a request through to its handler: who is calling, the rate limit, the role.

    In a group that charges failures (or successes) alone, a request is charged before its handler runs, so that many
    at once can't exceed the limit together; the charge is refunded once the status is known. So is a cost settled that
    the handler has reported (`settle_cost`). Every response gets the limiter's headers.

    Args:
        callers: verifies tokens.
        limiter: decides.
        rate_limits: the limits in force.
        rules: the role that each route requires, and the group it belongs to.
        on_refusal: called with the subject of each refusal.
    """

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        rule, state = rule_of(request, rules), state_of(request)
        if (token := recognise(request, state, callers)) is not None:
            await identify(state, rule, token, callers)
        if rule.limits is None:
            authorize(request, state, rule)
            return await handler(request)
        limits = rate_limits.current
        name = None
        if rule.name is not None and limits.counts_by_name(rule.limits):
            name = await rule.name(request)
        # A route whose cost is its own is counted in its group, and has charges of its own.
        place = rule.route if rule.route in limits.routes else rule.limits
        charges = _charges_of(limits, place, state, name)
        began = perf_counter()
        if (remembered := limiter.recall(charges)) is not None:
            state.timings.add("limit", "rate_limit.decide", began)
            refusal, wait_ms = remembered
            state.limit_lines, problem = refusal.texts.at(wait_ms, now=time(), jitter=state.request_id)
            return refuse(request, state, refusal.subject, problem)
        charging = limits.charged_by_answer.get(place)
        charge_id = _charge_id_of(rule, charging, charges)
        try:
            # Never the client's request id: repeating it would return the first verdict without being charged.
            decision = await limiter.decide(
                charges, request_id=charge_id, is_new=True, prefetch=_prefetch_of(request, rule, state)
            )
        finally:
            state.timings.add("limit", "rate_limit.decide", began)
        if not decision.allowed:
            if decision.source == "block-list":
                state.limit_outcome = "denied"
                raise NetworkBlocked
            waits = waits_of(decision, jitter=state.request_id)
            state.limit_lines = rate_limit_lines(decision, now=time(), waits=waits)
            return refuse(request, state, decision.violated[0].subject, problem_of(decision, waits=waits))
        state.limit_lines = rate_limit_lines(decision, now=time())
        state.limit_outcome = "allowed"
        if charge_id is not None:
            charged = _Charged(limiter, limiter.overridden(charges), charge_id, decision, charging or "all")
            return await charged.run(request, state, rule, handler)
        authorize(request, state, rule)
        return await handler(request)

    def refuse(
        request: web.Request, state: RequestState, subject: str, problem: dict[str, Any]
    ) -> WholeResponse:
        state.limit_outcome = "denied"
        on_refusal(subject)
        note_error_code(request, "rate_limited")
        before, after = _body_around_id(
            problem["type"], problem["title"], problem["detail"], tuple(problem["violated-policies"])
        )
        body = f"{before}{state.request_id}{after}".encode()
        return WholeResponse(body, status=problem["status"], lines=PROBLEM_LINES)

    return admit


def _charges_of(limits: RateLimits, place: str, state: RequestState, named: str | None) -> PreparedCharges:
    caller = state.caller
    return limits.charges_for(
        place,
        user_key=None if caller is None else caller.user_key,
        plan=None if caller is None else caller.plan,
        client_ip=state.client_ip,
        address=state.address,
        named=named,
    )


def _charge_id_of(rule: Rule, charging: Charging | None, charges: PreparedCharges) -> str | None:
    """An id to change the charges by, for a request whose answer decides what it costs."""
    return secrets.token_hex(16) if charging is not None or rule.settles or charges.leases else None


def _prefetch_of(request: web.Request, rule: Rule, state: RequestState) -> Callable[[], None] | None:
    if rule.look_up is None or state.caller is None:
        return None
    return partial(_look_up, rule.look_up, request, state)


def _look_up(look_up: LookUp, request: web.Request, state: RequestState) -> None:
    try:  # noqa: SIM105 - suppress() costs ten times as much, on every request
        state.looked_up = look_up(request)
    except MasteryError:
        pass  # the handler raises it again, once the request is charged


@lru_cache(maxsize=1024)  # A client that asks again and again is told the same seconds many times.
def _body_around_id(kind: str, title: str, detail: str, names: tuple[str, ...]) -> tuple[str, str]:
    """The body of a refusal before and after the id of its request, which has only characters that JSON takes."""
    problem = problem_response(
        status=HTTPStatus.TOO_MANY_REQUESTS,
        title=title,
        detail=detail,
        code="rate_limited",
        request_id=_ID,
        extensions={"type": kind, "violated-policies": names},
    )
    body = problem.body
    assert isinstance(body, bytes)  # noqa: S101 - what problem_response makes
    before, _, after = body.decode().partition(_ID)
    return before, after


def _status_of(error: Exception) -> int:
    """The status that an error is answered with."""
    return error.status if isinstance(error, MasteryError | web.HTTPException) else _OUR_FAULT


@dataclass(frozen=True, slots=True)
class _Charged:
    """A request whose charges may change with its answer."""

    limiter: Limiter
    charges: PreparedCharges
    charge_id: str
    decision: Decision
    charging: Charging

    async def run(
        self, request: web.Request, state: RequestState, rule: Rule, handler: Handler
    ) -> web.StreamResponse:
        """Check the role and run the handler, and charge what the answer says."""
        if self.charges.leases:
            release_at_end(self.limiter, self.charges, self.charge_id, self.decision)
        # Only Redis refunds. What is counted without it stays counted, which errs on the safe side.
        if self.decision.source != "redis":
            authorize(request, state, rule)
            return await handler(request)
        try:
            authorize(request, state, rule)
            response = await handler(request)
        except Exception as error:  # a cancelled request stays charged: it may have had its effect
            await self.settle(request, _status_of(error))
            raise
        await self.settle(request, response.status)
        return response

    async def settle(self, request: web.Request, status: int) -> None:
        """Charge what the request has cost, before its response is sent, so that the client's next one finds it so.

        If Redis does not answer, the first charges stay until the window has passed: the client has less left than it
        should.
        """
        try:
            if not stays_charged(self.charging, status):
                await self.limiter.settle(self.charges, request_id=self.charge_id, costs=self._all_at(0))
            elif (cost := request.get(SETTLED_COST)) is not None and self._differs_from(cost):
                costs = self._all_at(cost)
                units = await self.limiter.settle(self.charges, request_id=self.charge_id, costs=costs)
                state_of(request).limit_lines = rate_limit_lines(_settled(self.decision, units), now=time())
        except (RedisUnavailable, RedisReplyError) as error:
            log.warning("rate_limit.refund_lost", error=str(error))

    def _differs_from(self, cost: int) -> bool:
        return any(
            charge.cost != cost
            for index, charge in enumerate(self.charges)
            if index not in self.charges.leases
        )

    def _all_at(self, cost: int) -> list[int | None]:
        """The final costs: what is limited at once is given back later, when the response has been sent."""
        leases = self.charges.leases
        return [None if index in leases else cost for index in range(len(self.charges))]


def _settled(decision: Decision, units: tuple[int, ...]) -> Decision:
    """A decision with what is left once units have been given back or, below 0, charged in addition."""
    return Decision(
        decision.allowed,
        tuple(
            verdict._replace(remaining=min(verdict.limit, max(0, verdict.remaining + back)))
            for verdict, back in zip(decision.verdicts, units, strict=True)
        ),
        decision.source,
    )

"""What a request passes before its handler: who is calling, the rate limit, the role that its route requires.

The limiter decides once for each request, under all policies of its route group at once. The limits depend on the
caller's account, so a request is charged before its role is checked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from time import perf_counter, time
from typing import Any, Final

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
from server.ratelimit import Limiter
from server.ratelimit.headers import rate_limit_lines, refusal_of
from server.ratelimit.limits import Charging, RateLimits
from server.ratelimit.policies import Decision, PreparedCharges
from server.ratelimit.refusals import RememberedRefusal
from server.ratelimit.reloading import RateLimitsFile
from server.ratelimit.settlement import Charged

_CODE: Final = "rate_limited"
_REFUSED: Final = HTTPStatus.TOO_MANY_REQUESTS.value
# Stand in the body of a refusal for what differs from one to the next.
SECONDS: Final = "\ue000"
_ID: Final = "\ue001"


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
    count_error: Callable[[str], None] = lambda _code: None,
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
        count_error: called with the stable code of a refusal's problem.
    """
    refuse = _Refusals(on_refusal, count_error)

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
            return refuse.recalled(state, *remembered)
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
            return refuse.decided(state, decision)
        state.limit_lines = rate_limit_lines(decision, now=time())
        state.limit_outcome = "allowed"
        if charge_id is None:
            authorize(request, state, rule)
            return await handler(request)
        charged = Charged(limiter, charges, charge_id, decision, charging or "all")
        return await _run_charged(charged, request, state, rule, handler)

    return admit


class _Refusals:
    """Makes the answers to refused requests; the arguments are those of `admission`."""

    __slots__ = ("_count_error", "_on_refusal")

    def __init__(self, on_refusal: Callable[[str], None], count_error: Callable[[str], None]) -> None:
        self._on_refusal = on_refusal
        self._count_error = count_error

    def recalled(self, state: RequestState, refusal: RememberedRefusal, wait_ms: int) -> WholeResponse:
        """The answer from memory, put together from texts."""
        texts = refusal.texts
        state.limit_lines, seconds = texts.at(wait_ms, now=time(), jitter=state.request_id)
        if texts.body is None:
            texts.body = body_around(texts.problem(SECONDS))
        before, between, after = texts.body
        self._note(state, refusal.subject)
        body = f"{before}{seconds}{between}{state.request_id}{after}".encode()
        return WholeResponse(body, status=_REFUSED, lines=PROBLEM_LINES)

    def decided(self, state: RequestState, decision: Decision) -> WholeResponse:
        """The answer to a decision.

        Raises:
            NetworkBlocked: the client's network is blocked.
        """
        if decision.source == "block-list":
            state.limit_outcome = "denied"
            raise NetworkBlocked
        state.limit_lines, problem = refusal_of(decision, now=time(), jitter=state.request_id)
        self._note(state, decision.violated[0].subject)
        return _response_of(problem, state.request_id)

    def _note(self, state: RequestState, subject: str) -> None:
        state.limit_outcome = "denied"
        state.error_code = _CODE
        self._count_error(_CODE)
        self._on_refusal(subject)


async def _run_charged(
    charged: Charged, request: web.Request, state: RequestState, rule: Rule, handler: Handler
) -> web.StreamResponse:
    async def handle() -> web.StreamResponse:
        authorize(request, state, rule)
        return await handler(request)

    first = charged.decision
    try:
        return await charged.run(
            handle, answers=(MasteryError, web.HTTPException), cost_of=lambda: request.get(SETTLED_COST)
        )
    finally:
        if charged.decision is not first:
            state.limit_lines = rate_limit_lines(charged.decision, now=time())


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


def _response_of(problem: dict[str, Any], request_id: str) -> WholeResponse:
    return problem_response(
        status=problem["status"],
        title=problem["title"],
        detail=problem["detail"],
        code=_CODE,
        request_id=request_id,
        extensions={"type": problem["type"], "violated-policies": problem["violated-policies"]},
    )


def body_around(problem: dict[str, Any]) -> tuple[str, str, str]:
    """The body of a refusal before, between and after its seconds and the id of its request.

    Both have only characters that JSON takes.

    Args:
        problem: with `SECONDS` as its seconds.
    """
    body = _response_of(problem, _ID).body
    assert isinstance(body, bytes)  # noqa: S101 - what problem_response makes
    before, _, rest = body.decode().partition(SECONDS)
    between, _, after = rest.partition(_ID)
    return before, between, after

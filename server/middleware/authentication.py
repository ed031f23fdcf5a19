"""Authentication of callers before the rate limit, and authorization after it.

The limits depend on the caller's account, so a request is charged before its role is checked.
"""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from server.api.rules import Rules, rule_of
from server.api.services import checked_caller_of
from server.api.state import state_of
from server.domain.identity.callers import Callers
from server.errors import Forbidden, MasteryError


def authentication(callers: Callers, rules: Rules) -> Middleware:
    """The middleware that verifies the Bearer token, if there is one.

    A request with an invalid token is treated as anonymous: rate limited by address, and answered 401 only on routes
    that require a role.
    """

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        credentials = request.headers.get(hdrs.AUTHORIZATION)
        if credentials is not None:
            scheme, _, token = credentials.partition(" ")
            if scheme.lower() == "bearer":
                state = state_of(request)
                token = token.strip()
                try:
                    caller = callers.recall(token) or await callers.identify(
                        token, patient=not rule_of(request, rules).accepts_unchecked
                    )
                except MasteryError as refusal:
                    state.refusal = refusal
                else:
                    state.caller = caller
                    state.context.user_id = caller.user_key
        return await handler(request)

    return authenticate


def authorization(rules: Rules) -> Middleware:
    """The middleware that lets a request through to its handler if its caller has the role that the route requires."""

    @web.middleware
    async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
        rule = rule_of(request, rules)
        required = rule.role
        if required is not None:
            caller = state_of(request).caller
            if caller is None or not (caller.is_checked or rule.accepts_unchecked):
                caller = checked_caller_of(request)  # raises what is missing
            if required == "admin" and caller.role != "admin":
                raise Forbidden
        return await handler(request)

    return authorize

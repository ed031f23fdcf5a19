"""Who is calling, and whether that suffices: the steps of admission before the rate limit and after it.

The limits depend on the caller's account, so a request is charged before its role is checked.
"""

from __future__ import annotations

from aiohttp import hdrs, web

from server.api.rules import Rule
from server.api.services import RequestState, checked_caller_of
from server.domain.identity.callers import Callers
from server.errors import Forbidden, MasteryError


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

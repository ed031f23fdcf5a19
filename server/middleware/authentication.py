"""Says who is calling. Whether that is enough, the authorization decides, after the rate limit."""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from server.api.services import CALLER, services_of
from server.errors import Forbidden, MasteryError, Unauthenticated
from server.middleware.rules import rule_of
from server.telemetry.request_context import current_request

# Why a token was refused: its bearer is a stranger, limited by address, and told the reason where a role is required.
_REFUSAL = web.RequestKey("refusal", MasteryError)


@web.middleware
async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Verify the Bearer token, if there is one."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer":
        callers = services_of(request).callers
        token = token.strip()
        try:
            caller = callers.recall(token) or await callers.identify(token)
        except MasteryError as refusal:
            request[_REFUSAL] = refusal
        else:
            request[CALLER] = caller
            context = current_request.get()
            if context is not None:
                context.user_id = str(caller.user_id)
    return await handler(request)


@web.middleware
async def authorization(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request through to its handler if its caller has the role that the route requires."""
    required = rule_of(request).role
    if required is not None:
        caller = request.get(CALLER)
        if caller is None:
            raise request.get(_REFUSAL) or Unauthenticated()
        if required == "admin" and caller.role != "admin":
            raise Forbidden
    return await handler(request)

"""What the chain has found out about a request on its way in, for those further down and for the way out."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from server.domain.identity.tokens import Caller
from server.errors import MasteryError
from server.net.addresses import Address
from server.telemetry.context import RequestContext
from server.telemetry.timings import Timings


class RequestState:
    """One object a request, made by the outermost link: finding several things on a request would cost more."""

    __slots__ = (
        "address", "caller", "client_ip", "context", "error_code", "limit_lines", "limit_outcome", "looked_up",
        "refusal", "request_id", "timings",
    )  # fmt: skip

    def __init__(self, context: RequestContext, timings: Timings, address: Address, client_ip: str) -> None:
        self.request_id = context.request_id
        # The same objects as `current_request` and `current_timings` give to code that does not have the request.
        self.context = context
        self.timings = timings
        self.address = address
        self.client_ip = client_ip
        # Set by authentication: the caller, or why the token was refused; neither for a request without a token.
        self.caller: Caller | None = None
        self.refusal: MasteryError | None = None
        # Set by the rate limit: the outcome, the headers for whatever answer the request gets in the end, and the
        # cache read that the route has started in the same call.
        self.limit_outcome = "unlimited"
        self.limit_lines = ""
        self.looked_up: Any = None
        # Set with every problem that is answered: its stable code.
        self.error_code: str | None = None


STATE = web.RequestKey("state", RequestState)


# Set by handlers whose requests have a cost that is known only afterwards.
SETTLED_COST = web.RequestKey("settled_cost", int)


def settle_cost(request: web.Request, units: int) -> None:
    """Charge a request so many units in the end, for routes that settle; once, and before its answer.

    Its decision has charged what the rate limits file says. More is charged as far as the limits have room.

    Raises:
        ValueError: it is below 0.
        RuntimeError: the request's cost is settled already.
    """
    if units < 0:
        raise ValueError(f"a request costs 0 units or more, not {units}")
    if SETTLED_COST in request:
        raise RuntimeError("the cost of this request is settled already")
    request[SETTLED_COST] = units


def state_of(request: web.Request) -> RequestState:
    """The state of a request."""
    return request[STATE]

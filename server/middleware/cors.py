"""Cross-origin requests (WHATWG Fetch) from exactly the origins that the settings name."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from server.api.responses import NO_STORE_LINE, lines_of
from server.api.whole_response import WholeResponse, add_lines, header_line, vary_by

_EXPOSED = (
    "X-Request-ID, X-Trace-ID, Server-Timing, X-Response-Time, X-Performance-Rating, X-RateLimit-Limit, "
    "X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit-Policy, RateLimit, Retry-After, X-Cache, ETag, Location, "
    "Idempotency-Replayed, X-Time-Zone-Used"
)
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, X-Request-ID, X-Time-Zone, "
    "traceparent, tracestate"
)
_PREFLIGHT_SECONDS = 7200
_FOR_PREFLIGHTS = lines_of(
    {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(_PREFLIGHT_SECONDS),
    }
)
_FOR_ANSWERS = header_line(hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, _EXPOSED)


def cors(origins: Collection[str]) -> Middleware:
    """The middleware; `origins` are compared as they are, such as https://app.example.com.

    A preflight of any origin is answered here, so it is never limited. Foreign origins get no CORS headers.
    """

    @web.middleware
    async def share(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        is_shared = origin is not None and origin in origins
        is_preflight = (
            origin is not None
            and request.method == hdrs.METH_OPTIONS
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        )
        response: web.StreamResponse = WholeResponse(status=204) if is_preflight else await handler(request)
        if origins:
            vary_by(response, hdrs.ORIGIN)
        lines = NO_STORE_LINE if is_preflight else ""
        if origin is not None and is_shared:  # one of the settings' values
            lines += f"{hdrs.ACCESS_CONTROL_ALLOW_ORIGIN}: {origin}\r\n"
            lines += _FOR_PREFLIGHTS if is_preflight else f"{_FOR_ANSWERS}Timing-Allow-Origin: {origin}\r\n"
        add_lines(response, lines)
        return response

    return share

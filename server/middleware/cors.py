"""Cross-origin requests (WHATWG Fetch) from exactly the origins that the settings name."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

_EXPOSED = (
    "X-Request-ID, X-Trace-ID, Server-Timing, X-Response-Time, X-Performance-Rating, X-RateLimit-Limit, "
    "X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit-Policy, RateLimit, Retry-After, X-Cache, ETag, Location"
)
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, X-Request-ID, X-Time-Zone, "
    "traceparent, tracestate"
)
_PREFLIGHT_SECONDS = 7200


def cors(origins: Collection[str]) -> Middleware:
    """The middleware; `origins` are compared as they are, such as https://app.example.com."""

    @web.middleware
    async def share(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or origin not in origins:
            response = await handler(request)
            if origins:
                response.headers.add(hdrs.VARY, hdrs.ORIGIN)
            return response
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            response = web.Response(status=204)
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _METHODS
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _HEADERS
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(_PREFLIGHT_SECONDS)
        else:
            response = await handler(request)
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
            response.headers["Timing-Allow-Origin"] = origin
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        return response

    return share

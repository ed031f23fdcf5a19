"""Cross-origin requests (WHATWG Fetch) from exactly the origins that the settings name."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

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
_FOR_PREFLIGHTS = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _HEADERS,
    hdrs.ACCESS_CONTROL_MAX_AGE: str(_PREFLIGHT_SECONDS),
}
_FOR_ANSWERS = {hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: _EXPOSED}


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
        response: web.StreamResponse = web.Response(status=204) if is_preflight else await handler(request)
        if origins:
            vary = response.headers.get(hdrs.VARY)
            response.headers[hdrs.VARY] = hdrs.ORIGIN if vary is None else f"{vary}, {hdrs.ORIGIN}"
        if is_preflight:
            response.headers[hdrs.CACHE_CONTROL] = "no-store"
        if origin is not None and is_shared:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers.update(_FOR_PREFLIGHTS if is_preflight else _FOR_ANSWERS)
            if not is_preflight:
                response.headers["Timing-Allow-Origin"] = origin
        return response

    return share

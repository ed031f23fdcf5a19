"""The headers of every answer, whether the application made it or the HTTP parser's refusal did; and CORS.

Cross-origin requests (WHATWG Fetch) are answered for exactly the origins that the settings name.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection
from datetime import timedelta

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from server.api.responses import NO_STORE_LINE, lines_of
from server.api.whole_response import WholeResponse, add_lines, header_line, vary_by
from server.settings import Settings
from server.telemetry.timings import Elapsed

_HSTS = f"max-age={int(timedelta(days=365).total_seconds())}; includeSubDomains"
# Unique, not secret: no system call for each. Seeded by the system anew in every process that is forked.
_random = random.Random()  # noqa: S311
_random_bits = _random.getrandbits
os.register_at_fork(after_in_child=_random.seed)
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


def new_request_id() -> str:
    """An id for a request whose client gave none that we accept."""
    return f"req_{_random_bits(128).to_bytes(16).hex()}"


class StandardHeaders:
    """Makes the headers that every response has."""

    def __init__(self, settings: Settings) -> None:
        self._good_ms = settings.rating_good_ms
        self._poor_ms = settings.rating_poor_ms
        self._fixed = (
            header_line("X-Content-Type-Options", "nosniff")
            + header_line("Referrer-Policy", "no-referrer")
            + header_line("X-Frame-Options", "DENY")
            + header_line(hdrs.SERVER, "mastery")
        )
        if settings.hsts:
            self._fixed += header_line("Strict-Transport-Security", _HSTS)

    def of(self, request_id: str, trace_id: str, elapsed: Elapsed) -> str:
        """The headers of one response as lines of its head.

        Args:
            request_id: of the request, in the form that is accepted.
            trace_id: of the trace it belongs to, likewise.
            elapsed: the time that it took.
        """
        total_ms = elapsed.total_ms
        rating = "Good"
        if total_ms >= self._good_ms:
            rating = "Needs Improvement" if total_ms < self._poor_ms else "Poor"
        total, parts = elapsed.total, ""
        for part, milliseconds in elapsed.parts.items():
            parts += f", {part};dur={milliseconds}"
        return (
            f"X-Request-ID: {request_id}\r\nX-Trace-ID: {trace_id}\r\n"
            f"Server-Timing: total;dur={total}{parts}\r\nX-Response-Time: {total}ms\r\n"
            f"X-Performance-Rating: {rating}\r\n{self._fixed}"
        )


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

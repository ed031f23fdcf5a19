"""The outermost link: a request id in and out, the stopwatch, the headers of every response, one log line."""

from __future__ import annotations

import random
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import istr

from server.api.state import STATE, RequestState
from server.middleware.client import Clients
from server.ratelimit.proxies import TrustedProxies
from server.telemetry.access_log import AccessLog
from server.telemetry.request_context import RequestContext, current_request
from server.telemetry.timings import Elapsed, Timings, current_timings
from server.telemetry.trace_context import TraceContext, parse_trace_context

if TYPE_CHECKING:  # the packages it needs are an extra
    from opentelemetry.trace import Span

    from server.telemetry.span_export import SpanExport

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:+/=-]{20,200}", re.ASCII)
# Unique, not secret: no system call for each. Seeded by the system in every process, after its fork.
_random_bits = random.Random().getrandbits  # noqa: S311
_REQUEST_ID, _TRACE_ID, _TRACEPARENT = map(istr, ("X-Request-ID", "X-Trace-ID", "traceparent"))
_SERVER_TIMING, _RESPONSE_TIME = map(istr, ("Server-Timing", "X-Response-Time"))
_RATING, _CACHE = map(istr, ("X-Performance-Rating", "X-Cache"))
_HSTS = f"max-age={int(timedelta(days=365).total_seconds())}; includeSubDomains"


def tracing(
    *,
    rating_good_ms: float,
    rating_poor_ms: float,
    hsts: bool,
    trusted: TrustedProxies,
    spans: SpanExport | None = None,
) -> Middleware:
    """The middleware.

    Args:
        rating_good_ms: faster answers are rated Good.
        rating_poor_ms: from here on they are Poor.
        hsts: tell browsers to come back by HTTPS only.
        trusted: whose word on a client's address counts.
        spans: exports each request as a trace.
    """
    fixed = [
        (istr("X-Content-Type-Options"), "nosniff"),
        (istr("Referrer-Policy"), "no-referrer"),
        (istr("X-Frame-Options"), "DENY"),
        (hdrs.SERVER, "mastery"),
    ]
    if hsts:
        fixed.append((istr("Strict-Transport-Security"), _HSTS))
    access_log = AccessLog()
    clients = Clients(trusted)

    def rating_of(total_ms: float) -> str:
        if total_ms < rating_good_ms:
            return "Good"
        return "Needs Improvement" if total_ms < rating_poor_ms else "Poor"

    def write_line(
        request: web.Request,
        state: RequestState,
        context: RequestContext,
        timings: Timings,
        elapsed: Elapsed,
        status: int,
        size: int,
        span: Span | None,
    ) -> None:
        if spans is not None and span is not None:
            spans.end(
                span,
                context,
                timings,
                status=status,
                client_ip=state.client_ip,
                response_bytes=size,
                rate_limit=state.limit_outcome,
                error_code=state.error_code,
            )
        access_log.write(
            context,
            method=request.method,
            route=route_template(request),
            status=status,
            elapsed=elapsed,
            counts=timings.counts,
            client_ip=state.client_ip,
            response_bytes=size,
            rate_limit=state.limit_outcome,
            error_code=state.error_code,
        )

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        timings = Timings()
        request_id = request_id_of(request)
        parent = trace_context_of(request)
        context = RequestContext(request_id, request_id if parent is None else parent.trace_id, parent)
        client = clients.find(request)
        state = request[STATE] = RequestState(context, timings, client.address, client.text)
        # One connection is one task: what the request before has left here is replaced.
        current_request.set(context)
        current_timings.set(timings)
        span = None
        if spans is not None:
            span = spans.begin(
                context, timings, method=request.method, scheme=request.scheme, route=template_of(request)
            )
        try:
            response = await handler(request)
        except BaseException:
            write_line(request, state, context, timings, timings.read(), 499, 0, span)
            raise
        elapsed = timings.read()
        trace_id = request_id if parent is None else parent.trace_id
        # At once, and added: none of them is set by anyone else, so none has to be looked for.
        told = [
            (_REQUEST_ID, request_id),
            (_TRACE_ID, trace_id),
            (_SERVER_TIMING, server_timing(elapsed)),
            (_RESPONSE_TIME, f"{elapsed.total}ms"),
            (_RATING, rating_of(elapsed.total_ms)),
            *state.limit_headers,
            *fixed,
        ]
        if timings.cache_outcome is not None:
            told.append((_CACHE, timings.cache_outcome))
        response.headers.extend(told)
        body = response.body if isinstance(response, web.Response) else None
        size = len(body) if isinstance(body, bytes) else 0
        write_line(request, state, context, timings, elapsed, response.status, size, span)
        return response

    return trace


def request_id_of(request: web.Request) -> str:
    """The caller's request id where it is one we accept; a new one otherwise."""
    offered = request.headers.get(_REQUEST_ID)
    if offered is not None and _ACCEPTED_ID.fullmatch(offered):
        return offered
    return f"req_{_random_bits(128):032x}"


def trace_context_of(request: web.Request) -> TraceContext | None:
    """The trace that a request belongs to, where its headers say so as W3C Trace Context wants it."""
    offered = request.headers.get(_TRACEPARENT)
    if offered is None:
        return None
    return parse_trace_context(offered, request.headers.getall("tracestate", ()))


def server_timing(elapsed: Elapsed) -> str:
    """The Server-Timing header (W3C): the total, and each part that happened, in milliseconds."""
    field = f"total;dur={elapsed.total}"
    for part, milliseconds in elapsed.parts.items():
        field += f", {part};dur={milliseconds}"
    return field


def route_template(request: web.Request) -> str:
    """The template of the route that a request matched, such as /api/classes/{classId}."""
    return template_of(request) or "unmatched"


def template_of(request: web.Request) -> str | None:
    """The same, or None."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical

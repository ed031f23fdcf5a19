"""The outermost link: a request id in and out, the stopwatch, the headers of every response, one log line."""

from __future__ import annotations

import random
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from server.api.state import STATE, RequestState
from server.middleware.client import Clients
from server.ratelimit.proxies import TrustedProxies
from server.telemetry.access_log import AccessLog
from server.telemetry.request_context import RequestContext, current_request
from server.telemetry.timings import Timings, current_timings
from server.telemetry.trace_context import TraceContext, parse_trace_context

if TYPE_CHECKING:  # the packages it needs are an extra
    from opentelemetry.trace import Span

    from server.telemetry.span_export import SpanExport

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:+/=-]{20,200}", re.ASCII)
# Unique, not secret: no system call for each. Seeded by the system in every process, after its fork.
_random_bits = random.Random().getrandbits  # noqa: S311
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
    fixed = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        hdrs.SERVER: "mastery",
    }
    if hsts:
        fixed["Strict-Transport-Security"] = _HSTS
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
        total_ms: float,
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
            duration_ms=total_ms,
            timings=timings,
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
            span = spans.begin(context, timings, method=request.method, route=template_of(request))
        try:
            response = await handler(request)
        except BaseException:
            write_line(request, state, context, timings, timings.total_ms(), 499, 0, span)
            raise
        total_ms = timings.total_ms()
        headers = response.headers
        headers["X-Request-ID"] = request_id
        headers["X-Trace-ID"] = request_id if parent is None else parent.trace_id
        headers["Server-Timing"] = server_timing(timings, total_ms)
        headers["X-Response-Time"] = f"{total_ms:.2f}ms"
        headers["X-Performance-Rating"] = rating_of(total_ms)
        if timings.cache_outcome is not None:
            headers["X-Cache"] = timings.cache_outcome
        headers.update(state.limit_headers)
        headers.update(fixed)
        body = response.body if isinstance(response, web.Response) else None
        size = len(body) if isinstance(body, bytes) else 0
        write_line(request, state, context, timings, total_ms, response.status, size, span)
        return response

    return trace


def request_id_of(request: web.Request) -> str:
    """The caller's request id where it is one we accept; a new one otherwise."""
    offered = request.headers.get("X-Request-ID")
    if offered is not None and _ACCEPTED_ID.fullmatch(offered):
        return offered
    return f"req_{_random_bits(128):032x}"


def trace_context_of(request: web.Request) -> TraceContext | None:
    """The trace that a request belongs to, where its headers say so as W3C Trace Context wants it."""
    offered = request.headers.get("traceparent")
    if offered is None:
        return None
    return parse_trace_context(offered, request.headers.getall("tracestate", ()))


def server_timing(timings: Timings, total_ms: float) -> str:
    """The Server-Timing header (W3C): the total, and each part that happened, in milliseconds."""
    parts = [f"total;dur={total_ms:.2f}"]
    parts += [
        f"{part};dur={timings.part_ms(part):.2f}"
        for part in ("db", "cache", "limit")
        if part in timings.seconds
    ]
    return ", ".join(parts)


def route_template(request: web.Request) -> str:
    """The template of the route that a request matched, such as /api/classes/{classId}."""
    return template_of(request) or "unmatched"


def template_of(request: web.Request) -> str | None:
    """The same, or None."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical

"""The outermost middleware: a request's id, its client's address, its stopwatch, its log line.

Its response gets the headers that every response has, and is compressed here, whoever has made it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler, Middleware
from multidict import istr

from server.api.compression import COMPRESSED_FROM_BYTES, CompressedBodies, encode
from server.api.services import STATE, RequestState
from server.api.whole_response import add_lines, size_of
from server.bounded_dict import BoundedDict
from server.middleware.headers import StandardHeaders, new_request_id
from server.net import Address, ShownAddresses, TrustedProxies, client_address
from server.telemetry.context import (
    RequestContext,
    RequestLine,
    TraceContext,
    current_request,
    new_request_line,
    parse_trace_context,
    trace_id_of,
)
from server.telemetry.logs.requests import AccessLog
from server.telemetry.timings import Elapsed, Timings, current_timings

if TYPE_CHECKING:  # the packages it needs are an extra
    from server.telemetry.traces import SpanExport

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:+/=-]{20,200}", re.ASCII)
_REQUEST_ID, _TRACEPARENT, _USER_AGENT = map(istr, ("X-Request-ID", "traceparent", "User-Agent"))
_PREFIX_LENGTH = len("req_")
_MOST_KNOWN = 8192
# Longer headers do not come from a chain of proxies, and must not fill the memory.
_LONGEST_KNOWN = 256

_Evidence = tuple[str | None, tuple[str, ...], tuple[str, ...]]


def tracing(
    *,
    headers: StandardHeaders,
    trusted: TrustedProxies,
    spans: SpanExport | None = None,
    addresses: ShownAddresses | None = None,
) -> Middleware:
    """The outermost middleware: gives a request its context and its stopwatch, and its response the headers.

    Args:
        headers: what every response gets.
        trusted: the proxies whose headers are believed.
        spans: exports each request as a trace.
        addresses: what shortens or hashes clients' addresses for logs; None to show them whole.
    """
    access_log = AccessLog()
    where = path_of if access_log.shows_paths else route_template
    clients = Clients(trusted, addresses)
    bodies = CompressedBodies()

    def write_line(
        request: web.Request, state: RequestState, client: Client, elapsed: Elapsed, status: int, size: int
    ) -> RequestLine:
        version = request.version
        line = new_request_line(
            (
                state.context,
                request.method,
                where(request),
                status,
                elapsed,
                state.timings,
                client.shown,
                size,
                state.limit_outcome,
                state.error_code,
                "1.1" if version is HttpVersion11 else f"{version.major}.{version.minor}",
                access_log.user_agent(request.headers.get(_USER_AGENT)),
            )
        )
        access_log.write(line)
        return line

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        timings = Timings()
        request_id = offered_id_of(request)
        if request_id is None:
            request_id = new_request_id()
            begun = request_id[_PREFIX_LENGTH:]
        else:  # without the client's address, of which its proxy may have made the id
            begun = trace_id_of(request_id if addresses is None else addresses.in_text(request_id))
        parent = trace_context_of(request)
        context = RequestContext(request_id, begun if parent is None else parent.trace_id, parent)
        client = clients.find(request)
        state = request[STATE] = RequestState(context, timings, client.address, client.text)
        # A connection is one task: these replace the previous request's.
        current_request.set(context)
        current_timings.set(timings)
        span = None
        if spans is not None:
            span = spans.begin(
                context, timings, method=request.method, scheme=request.scheme, route=template_of(request)
            )
        try:
            response = await handler(request)
            size = size_of(response)
            if size >= COMPRESSED_FROM_BYTES and isinstance(response, web.Response):
                size = await encode(request, response, bodies)
        except BaseException:
            line = write_line(request, state, client, timings.read(), 499, 0)
            if spans is not None and span is not None:
                spans.end(span, line)
            raise
        elapsed = timings.read()
        # No handler sets these headers, so there is nothing to replace.
        added = headers.of(request_id, request_id if parent is None else parent.trace_id, elapsed)
        added += state.limit_lines
        if timings.cache_outcome is not None:
            added += f"X-Cache: {timings.cache_outcome}\r\n"
        add_lines(response, added)
        line = write_line(request, state, client, elapsed, response.status, size)
        if spans is not None and span is not None:
            spans.end(span, line)
        return response

    return trace


class Client(NamedTuple):
    """Where a request came from.

    Args:
        address: as IPv4 where IPv6 wraps one.
        text: the same as text.
        shown: the form of it in logs and traces.
    """

    address: Address
    text: str
    shown: str


class Clients:
    """Finds the addresses of clients, and remembers them: the same clients come again and again.

    Args:
        trusted: the proxies whose headers are believed.
        addresses: what shortens or hashes them for logs; None to show them whole.
    """

    def __init__(self, trusted: TrustedProxies, addresses: ShownAddresses | None = None) -> None:
        self._trusted = trusted
        self._addresses = addresses
        self._known: BoundedDict[_Evidence, Client] = BoundedDict(_MOST_KNOWN)

    def find(self, request: web.Request) -> Client:
        """The client of a request: the connection's other end, or what trusted proxies report."""
        evidence: _Evidence = (request.remote, (), ())
        if self._trusted:
            headers = request.headers
            evidence = (
                evidence[0],
                tuple(headers.getall("Forwarded", ())),
                tuple(headers.getall("X-Forwarded-For", ())),
            )
        return self._known.get(evidence) or self._find(evidence)

    def _find(self, evidence: _Evidence) -> Client:
        peer, forwarded, x_forwarded_for = evidence
        address = client_address(peer, forwarded, x_forwarded_for, self._trusted)
        text = str(address)
        shown = text if self._addresses is None else self._addresses.address(address)
        client = Client(address, text, shown)
        if sum(map(len, (*forwarded, *x_forwarded_for))) <= _LONGEST_KNOWN:
            self._known[evidence] = client
        return client


def offered_id_of(request: web.BaseRequest) -> str | None:
    """The caller's request id where it is one we accept."""
    offered = request.headers.get(_REQUEST_ID)
    return offered if offered is not None and _ACCEPTED_ID.fullmatch(offered) else None


def request_id_of(request: web.BaseRequest) -> str:
    """The caller's request id where it is one we accept; a new one otherwise."""
    return offered_id_of(request) or new_request_id()


def trace_context_of(request: web.Request) -> TraceContext | None:
    """The trace that a request belongs to, if its headers name one in the form of W3C Trace Context."""
    offered = request.headers.get(_TRACEPARENT)
    if offered is None:
        return None
    return parse_trace_context(offered, request.headers.getall("tracestate", ()))


def route_template(request: web.Request) -> str:
    """The template of the route that a request matched, such as /api/classes/{classId}; `unmatched` without one."""
    return template_of(request) or "unmatched"


def path_of(request: web.Request) -> str:
    """The path of a request without its query, percent-encoded as it was sent."""
    return request.rel_url.raw_path


def template_of(request: web.Request) -> str | None:
    """The same, but None without one."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical

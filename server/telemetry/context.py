"""The request that the code is working for: its ids, its trace, and what is known of it in the end.

Every log line and the comment of every query name the request. Its trace is read from its headers and passed on with
outbound calls (W3C Trace Context).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Final, NamedTuple

from server.telemetry.timings import Elapsed, Timings

# What is known of HTTP; any other method is a client's invention.
HTTP_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"}
)
# Section 3.2: version-traceid-parentid-flags; all zeros are invalid, version ff is forbidden.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace_id>[0-9a-f]{32})-(?!0{16})(?P<parent_id>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.ASCII,
)
# Section 3.3.1.5: at least this much has to be passed on.
_LONGEST_STATE = 512
_STATE = re.compile(r"[\x20-\x7e]+", re.ASCII)
_GENERATED_ID = re.compile(r"req_(?!0{32})([0-9a-f]{32})", re.ASCII)
_KNOWN_FLAGS = 0x03  # sampled, and the trace-id is random: version 00 reserves the others


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace that a caller has named in its headers."""

    trace_id: str
    parent_id: str
    flags: int
    state: str = ""

    def headers(self) -> dict[str, str]:
        """The headers for a call to another service, in version 00 of the specification."""
        headers = {"traceparent": f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"}
        if self.state:
            headers["tracestate"] = self.state
        return headers


def parse_trace_context(traceparent: str, tracestates: Sequence[str] = ()) -> TraceContext | None:
    """The trace context of a request.

    Args:
        traceparent: the header's value.
        tracestates: the values of all its tracestate headers; they are one list in several pieces. A list that is too
            long or no printable ASCII is left out.

    Returns:
        None where the traceparent is not valid: section 3.2 wants the request to be treated as if it had none.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match["version"] == "00" and match["more"] is not None):
        return None
    state = ",".join(piece for value in tracestates if (piece := value.strip(" \t,")))
    if len(state) > _LONGEST_STATE or not _STATE.fullmatch(state):
        state = ""
    return TraceContext(match["trace_id"], match["parent_id"], int(match["flags"], 16) & _KNOWN_FLAGS, state)


def trace_id_of(request_id: str) -> str:
    """The trace that begins with a request: 32 hexadecimal digits, the same for the same id.

    They are those of an id that the service has made; of any other id they are a digest.
    """
    generated = _GENERATED_ID.fullmatch(request_id)
    return blake2b(request_id.encode(), digest_size=16).hexdigest() if generated is None else generated[1]


class RequestContext:
    """The ids of a request, its trace and its user: one object that is filled in as more is known.

    Args:
        request_id: its own, or the one that its sender has given it.
        trace_id: of the trace it is part of, or begins: 32 hexadecimal digits.
        trace: what its headers say of the trace; None if they name none.
    """

    __slots__ = ("request_id", "trace", "trace_id", "user_id")

    def __init__(self, request_id: str, trace_id: str, trace: TraceContext | None = None) -> None:
        self.request_id = request_id
        self.trace_id = trace_id
        self.trace = trace
        self.user_id: str | None = None

    def fields(self) -> dict[str, str]:
        """The ids as fields of a log line."""
        fields = {"request_id": self.request_id, "trace_id": self.trace_id}
        if self.user_id is not None:
            fields["user_id"] = self.user_id
        return fields


class UserAgent(NamedTuple):
    """What a client calls itself, in printable ASCII without secrets, and cut to a bounded length.

    Args:
        text: as it is.
        quoted: as it stands between the quotation marks of JSON.
    """

    text: str
    quoted: str


class RequestLine(NamedTuple):
    """What is known of a request that has ended: the content of its log line, and of its span.

    Args:
        context: its ids, and its user where one is known.
        method: as the client sent it.
        route: its route template; its path where `AccessLog.shows_paths` says so, and nowhere else.
        status: of the answer; 499 for a client that hung up.
        elapsed: the total that the response headers name, and the time of each part.
        timings: the number of operations of each part, and what the cache answered.
        client_ip: the client's address as it is to be shown.
        response_bytes: the length of the answer's body.
        rate_limit: the limiter's verdict: allowed, denied or unlimited.
        error_code: the stable code of the problem that was answered, if it was one.
        http_version: of the protocol, such as `1.1`.
        user_agent: what the client calls itself; None where it does not.
    """

    context: RequestContext
    method: str
    route: str
    status: int
    elapsed: Elapsed
    timings: Timings
    client_ip: str
    response_bytes: int
    rate_limit: str
    error_code: str | None = None
    http_version: str = "1.1"
    user_agent: UserAgent | None = None


# Of all its fields in order, at half the cost of calling the class.
new_request_line: Final[Callable[[tuple[object, ...]], RequestLine]] = partial(tuple.__new__, RequestLine)

current_request: ContextVar[RequestContext | None] = ContextVar("current_request", default=None)


def outgoing_headers() -> dict[str, str]:
    """The trace headers for a call to another service; empty outside of a trace."""
    request = current_request.get()
    return {} if request is None or request.trace is None else request.trace.headers()

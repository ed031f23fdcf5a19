"""What is refused before the application sees a request: answered like every other error, counted, rarely logged."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address
from time import perf_counter

import structlog
from aiohttp import hdrs
from aiohttp.http_exceptions import LineTooLong

from server.api.responses import problem_response
from server.api.whole_response import add_lines, header_line
from server.middleware.headers import StandardHeaders, new_request_id
from server.net import without_mapping
from server.ratelimit.subjects import subject_of_address
from server.telemetry.context import trace_id_of
from server.telemetry.metrics.index import Metrics
from server.telemetry.timings import Elapsed

log = structlog.get_logger(__name__)

MAX_FIELD_BYTES = 16 << 10
# The longest cursor, each character of it four percent-encoded bytes: what is wrong with it, we say, not the parser.
MAX_LINE_BYTES = 32 << 10
MAX_HEAD_BYTES = 128 << 10
_QUIET_SECONDS = 60.0
_MAX_ADDRESSES = 1024


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was asked of the application.

    Args:
        reason: a word for metrics and log lines.
        status: of the answer.
        title: of the answer.
        detail: of the answer; nothing that the client has sent.
        retry_after_seconds: for a condition that passes.
    """

    reason: str
    status: int
    title: str
    detail: str
    retry_after_seconds: int | None = None


MALFORMED = Refusal("malformed", 400, "Bad Request", "This is not a valid HTTP/1.1 request.")
LONG_LINE = Refusal(
    "line_too_long", 414, "URI Too Long", f"The address is longer than {MAX_LINE_BYTES} bytes."
)
LARGE_HEADER = Refusal(
    "header_too_large",
    431,
    "Request Header Fields Too Large",
    f"A header is larger than {MAX_FIELD_BYTES} bytes, or all together are larger than {MAX_HEAD_BYTES}.",
)
SLOW_HEAD = Refusal("head_timeout", 408, "Request Timeout", "The head of the request did not arrive in time.")
UNKNOWN_EXPECTATION = Refusal(
    "expectation", 417, "Expectation Failed", "The only expectation that is met here is 100-continue."
)
CROWDED = Refusal(
    "too_many_connections",
    503,
    "Service Unavailable",
    "There are too many connections; try again shortly.",
    retry_after_seconds=1,
)
FAILED = Refusal(
    "failed", 500, "Internal Server Error", "Something went wrong on our side; the request id finds it."
)


class Refused(Exception):
    """Raised outside of the application's middlewares for a request whose head was understood."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def refusal_of(error: BaseException) -> Refusal:
    """What a failure of the HTTP parser is answered with."""
    if isinstance(error, LineTooLong):
        return LONG_LINE if error.args[1:2] == (MAX_LINE_BYTES,) else LARGE_HEADER
    return MALFORMED


class RefusalWriter:
    """Writes the answers of one worker's refusals.

    Args:
        headers: what every response gets.
        metrics: where they are counted.
        max_addresses: how many addresses are remembered as logged; the one logged longest ago is given up first.
    """

    def __init__(
        self, headers: StandardHeaders, metrics: Metrics, *, max_addresses: int = _MAX_ADDRESSES
    ) -> None:
        self._headers = headers
        self._metrics = metrics
        self._max_addresses = max_addresses
        # When each address was logged last, in monotonic seconds, and how many of its refusals were not logged since.
        self._logged: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def answer(
        self,
        refusal: Refusal,
        peer: str | None,
        *,
        started: float | None = None,
        request_id: str | None = None,
    ) -> bytes:
        """A complete response that ends its connection.

        Args:
            refusal: why.
            peer: the address of the connection's other end, for the log.
            started: when waiting for the request began, in the seconds of `perf_counter`; None for just now.
            request_id: the client's, where its head was understood.
        """
        request_id = request_id or new_request_id()
        self._metrics.http_refusals.labels(refusal.reason).inc()
        self._log(refusal, peer, request_id)
        total_ms = 0.0 if started is None else (perf_counter() - started) * 1000.0
        response = problem_response(
            status=refusal.status,
            title=refusal.title,
            detail=refusal.detail,
            code=refusal.title.lower().replace(" ", "_"),
            request_id=request_id,
        )
        elapsed = Elapsed(total_ms, f"{total_ms:.2f}", {})
        add_lines(response, self._headers.of(request_id, request_id, elapsed))
        if refusal.retry_after_seconds is not None:
            add_lines(response, header_line(hdrs.RETRY_AFTER, str(refusal.retry_after_seconds)))
        return response.as_last(refusal.title)

    def _log(self, refusal: Refusal, peer: str | None, request_id: str) -> None:
        """At most one line an address and minute; nothing in it comes from the client."""
        client = _client_of(peer)
        now = time.monotonic()
        last, unlogged = self._logged.get(client, (-_QUIET_SECONDS, 0))
        if now - last < _QUIET_SECONDS:
            self._logged[client] = last, unlogged + 1
            return
        self._logged[client] = now, 0
        self._logged.move_to_end(client)
        if len(self._logged) > self._max_addresses:
            self._logged.popitem(last=False)
        log.warning(
            "http.refused",
            reason=refusal.reason,
            client_ip=peer,
            request_id=request_id,
            trace_id=trace_id_of(request_id),
            not_logged_before=unlogged,
            **{"http.status": refusal.status},
        )


def _client_of(peer: str | None) -> str:
    """The addresses of one customer are one: an IPv6 client has 2^64 of them to send from."""
    try:
        address = without_mapping(ipaddress.ip_address(peer or ""))
    except ValueError:
        return ""  # a UNIX socket's other end
    return subject_of_address(address) if isinstance(address, IPv6Address) else str(address)

"""The connections of one worker: how many there may be, how long a head may take, and what is refused before a request.

What is refused before the application sees a request is answered like every other error, counted, and rarely logged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from time import perf_counter
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs
from aiohttp.http_exceptions import LineTooLong

from server.api.responses import problem_response
from server.api.whole_response import add_lines, header_line
from server.connections.unread import UnreadResponses
from server.middleware.headers import StandardHeaders, new_request_id
from server.net import without_mapping
from server.ratelimit.subjects import subject_of_address
from server.telemetry.context import trace_id_of
from server.telemetry.metrics.index import Metrics
from server.telemetry.timings import Elapsed

if TYPE_CHECKING:
    from server.connections.protocol import Connection

log = structlog.get_logger(__name__)

MAX_FIELD_BYTES = 16 << 10
# The longest cursor, each character of it four percent-encoded bytes: what is wrong with it, we say, not the parser.
MAX_LINE_BYTES = 32 << 10
MAX_HEAD_BYTES = 128 << 10
_QUIET_SECONDS = 60.0
_MAX_ADDRESSES = 1024
# Over the bound, for health probes.
SPARE_CONNECTIONS = 16
# A request that its client has sent may not have been read yet: younger ones are not taken for idle.
_YOUNG_SECONDS = 1.0
# What is left of a head comes at once from an honest client: older ones make room where there is no other.
_SLOW_HEAD_SECONDS = 2.0
_LINGER_SECONDS = 2.0
# An honest client reads on within that time.
_STILL_SECONDS = 2.0
_SCAN_SECONDS = 0.1
# Deadlines that are so close together are one turn of the loop.
_TURN_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was asked of the application; `detail` holds nothing that the client has sent."""

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


class Connections:
    """Keeps the bound and the deadlines of a worker's connections.

    At the bound, a new connection takes the place of the one that has been idle for longest, else of the one whose head
    is the slowest, else of the one whose client has not read on for longest. Where all are at work, it gets one of a
    few spare places: there, health probes are answered, and everything else is refused.

    Args:
        refusals: writes the answers.
        metrics: counts what was closed to make room.
        unread: the responses that clients do not read.
        limit: how many connections there may be, beside the spare ones.
        head_seconds: how long a head may take, from its first byte to its last; a new connection's, from its start.
    """

    def __init__(
        self,
        refusals: RefusalWriter,
        metrics: Metrics,
        unread: UnreadResponses,
        *,
        limit: int,
        head_seconds: float,
    ) -> None:
        self.refusals = refusals
        self.unread = unread
        self._limit = limit
        self._head_seconds = head_seconds
        self._count = metrics.tally(metrics.http_connections)
        self._closed_for_room = metrics.tally(metrics.http_idle_connections_closed)
        self._open: dict[Connection, None] = {}
        self._spare: dict[Connection, None] = {}
        # Both in the order of their deadlines, with the instant at which waiting began.
        self._heads: OrderedDict[Connection, float] = OrderedDict()
        self._lingering: OrderedDict[Connection, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        # Found idle at the last look, the longest first, with the instant since when.
        self._idle: deque[tuple[float, Connection]] = deque()
        self._next_look = 0.0
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def room(self) -> int:
        """How many more there may be before others have to make room."""
        return self._limit - len(self._open)

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self._open[connection] = None
        self._count.inc()
        self.head_started(connection)
        if len(self._open) - len(self._spare) > self._limit and not self._make_room():
            connection.make_spare()
            self._spare[connection] = None
            if len(self._spare) > SPARE_CONNECTIONS:
                # A probe sends its request at once: the oldest that has not is none.
                waiting = (other for other in self._spare if not other.is_busy or other is connection)
                self._drop(next(waiting))

    def closed(self, connection: Connection) -> None:
        """It is closed, or as good as closed."""
        if connection in self._open:
            del self._open[connection]
            self._count.dec()
        self._spare.pop(connection, None)
        self._heads.pop(connection, None)
        self._lingering.pop(connection, None)

    def head_started(self, connection: Connection) -> None:
        """It waits for the rest of a head."""
        self._heads[connection] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._head_seconds, self._end_overdue)

    def head_ended(self, connection: Connection) -> None:
        """The head is complete."""
        self._heads.pop(connection, None)

    def linger(self, connection: Connection) -> None:
        """It has been refused: close it when its client has had the time to read the answer."""
        self._heads.pop(connection, None)
        self._lingering[connection] = self._loop.time()
        self._arm()

    def promote(self, connection: Connection) -> bool:
        """Make a spare connection an ordinary one, if there is room."""
        if len(self._open) - len(self._spare) >= self._limit:
            return False
        self._spare.pop(connection, None)
        connection.make_ordinary()
        return True

    def _make_room(self) -> bool:
        """End a connection that has nothing under way, if there is one."""
        now = self._loop.time()
        idle = self._longest_idle(now)
        if idle is not None:
            self._closed_for_room.inc()
            self._drop(idle)
            return True
        for connection, begun in self._heads.items():
            if begun > now - _SLOW_HEAD_SECONDS:
                break
            if not connection.is_busy:
                self._drop(connection)
                return True
        still = self.unread.stillest(_STILL_SECONDS)
        if still is not None:
            self.closed(still)
            self.unread.cut(still, "connections")
        return still is not None

    def _longest_idle(self, now: float) -> Connection | None:
        """Looks at all of them, but seldom: what it finds serves for many."""
        while True:
            while self._idle:
                since, connection = self._idle.popleft()
                if connection in self._open and connection.idle_since == since:
                    return connection
            if now < self._next_look:
                return None
            found = [
                (idle, number, connection)
                for number, connection in enumerate(self._open)
                if (idle := connection.idle_since) is not None and idle < now - self._young(connection)
            ]
            found.sort(key=lambda entry: entry[:2])
            self._idle.extend((since, connection) for since, _, connection in found)
            if not found:
                self._next_look = now + _SCAN_SECONDS

    def _young(self, connection: Connection) -> float:
        return _YOUNG_SECONDS if connection in self._heads else 0.0

    def _drop(self, connection: Connection) -> None:
        """Close it without a word."""
        self.closed(connection)
        connection.force_close()

    def _end_overdue(self) -> None:
        """Answer the heads that are overdue, close those refused that have had their time; then wait for the next."""
        self._timer = None
        now = self._loop.time()
        for connection in _overdue(self._lingering, now - _LINGER_SECONDS):
            if connection in self.unread:  # it stays open until that is read or cut
                del self._lingering[connection]
                connection.force_close()
            else:
                self._drop(connection)
        for connection in _overdue(self._heads, now - self._head_seconds):
            del self._heads[connection]
            if connection.is_busy:  # with the request before this one
                self._heads[connection] = now
            else:
                connection.give_up_head()
        self._arm()

    def _arm(self) -> None:
        """One timer for all, for the earliest of their deadlines."""
        due = []
        if self._heads:
            due.append(next(iter(self._heads.values())) + self._head_seconds)
        if self._lingering:
            due.append(next(iter(self._lingering.values())) + _LINGER_SECONDS)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if due:
            self._timer = self._loop.call_at(
                max(min(due), self._loop.time() + _TURN_SECONDS), self._end_overdue
            )


def _overdue(waiting: OrderedDict[Connection, float], before: float) -> Iterator[Connection]:
    """Those that have waited since before an instant; each is gone from the dictionary when the next is asked for."""
    while waiting and next(iter(waiting.values())) <= before:
        yield next(iter(waiting))

"""A connection of aiohttp's server with deadlines, and with refusals in the service's own form.

`web.RequestHandler` is public, and so are the methods that are overridden here; but when a head has been read, when a
connection is idle and how it is ended without an answer of aiohttp's own can be seen only in its private attributes.
All use of them is in this module, and `tests/connections/test_protocol.py` names the version it was written for.

`Expect: 100-continue` is answered when a handler reads the body. A request that is refused before that does not send
its body.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter
from typing import Any

import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import _ErrInfo
from multidict import CIMultiDict

from server.api.requests import EXPECTS_CONTINUE
from server.api.responses import LARGE_BYTES
from server.api.whole_response import WholeResponse
from server.connections.backlog import Backlog
from server.connections.dispatch import Dispatch
from server.connections.table import (
    CROWDED,
    FAILED,
    LARGE_HEADER,
    MALFORMED,
    MAX_FIELD_BYTES,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    SLOW_HEAD,
    UNKNOWN_EXPECTATION,
    Connections,
    Refusal,
    Refused,
    refusal_of,
)
from server.connections.unread import LargeBody, limit_system_buffer
from server.middleware.tracing import request_id_of
from server.telemetry.context import current_request

log = structlog.get_logger(__name__)

Handle = Callable[[Any], Awaitable[web.StreamResponse]]

# What the platforms and orchestrators ask to learn whether the service lives.
PROBES = frozenset({"/livez", "/readyz", "/api/health"})
# How long the rest of a body is read and dropped after its answer, so that the client gets to read that.
_LINGER_SECONDS = 5.0
# How long a worker that stops waits for one more request on each connection; then it closes those that are idle.
_DRAIN_SECONDS = 2.0
_LOOK_SECONDS = 0.02
# Connections that wait to be accepted, while the workers are busy. The system drops those beyond it without a word:
# a client that believes itself connected waits for minutes.
_BACKLOG = 2048
# Longer than the platform's router keeps an idle connection (90 s): it must be the one that closes.
KEEPALIVE_SECONDS = 95
_parse = web.RequestHandler.data_received


def meet_expectations(handle: Handle) -> Handle:
    """The same handler, for requests that expect something too; aiohttp would answer those by itself, as text."""

    def handle_any(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        if hdrs.EXPECT in request.headers:
            return _handle_expecting(request, handle)
        return handle(request)

    return handle_any


async def _handle_expecting(request: web.BaseRequest, handle: Handle) -> web.StreamResponse:
    expected = request.headers.getall(hdrs.EXPECT)
    meets = request.version >= HttpVersion11  # RFC 9110, section 10.1.1: others don't know what it means
    if meets and any(value.strip().lower() != "100-continue" for value in expected):
        raise Refused(UNKNOWN_EXPECTATION)
    headers = CIMultiDict(request.headers)
    headers.popall(hdrs.EXPECT)
    quiet = request.clone(headers=headers)
    quiet[EXPECTS_CONTINUE] = meets
    response = await handle(quiet)
    if quiet[EXPECTS_CONTINUE] and not request.content.is_eof():
        # The client still waits with its body: it has its answer, and there is nothing more to read.
        response.force_close()
        request.content.feed_eof()
    return response


class Connection(web.RequestHandler):
    """One client's connection.

    Args:
        manager: aiohttp's server.
        connections: of the same worker; it keeps the deadlines and the bound.
        options: of `web.RequestHandler`.
    """

    __slots__ = (
        "_body",
        "_connections",
        "_head_bytes",
        "_head_started",
        "_large",
        "_requests_before_head",
        "is_spare",
    )

    def __init__(self, manager: web.Server, connections: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self._connections = connections
        # When the first byte of a head came that is not complete, in the seconds of `perf_counter`.
        self._head_started: float | None = None
        self._head_bytes = 0
        self._requests_before_head = 0
        # Of the latest request: what arrives belongs to it until it is complete.
        self._body: StreamReader | None = None
        # Of the response that is sent, or was sent last.
        self._large: LargeBody | None = None
        # Set by `Connections`: over the bound, for health probes only.
        self.is_spare = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head, of which the connection itself counts as the first byte."""
        super().connection_made(transport)
        # Pause as soon as anything is left to send. Then a response has ended when all of it is sent, and no idle or
        # closing connection holds the rest of one.
        assert self.transport is not None  # noqa: S101 - it was made just now
        self.transport.set_write_buffer_limits(0)
        limit_system_buffer(self.transport)
        self._head_started = perf_counter()
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self._connections.closed(self)
        self._connections.unread.ended(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered: it has to go on reading."""
        super().pause_writing()
        if self.transport is not None:
            self._connections.unread.paused(self, self.transport, self._large)

    def resume_writing(self) -> None:
        """The client has been sent what was written."""
        super().resume_writing()
        self._connections.unread.resumed(self)

    def has_room_for(self, size_bytes: int) -> bool:
        """Whether a response of so many bytes may be made now; see `UnreadResponses`."""
        return self._connections.unread.make_room(size_bytes)

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send a response: nearly every one with a single write, a large one in pieces.

        What aiohttp is to compress is left whole: of pieces it would not know the length, which HTTP/1.0 needs.
        """
        self._large = None
        # The first is quicker: `web.Response` is an abstract base class.
        if type(resp) is WholeResponse or isinstance(resp, web.Response):
            body = resp.body
            if isinstance(body, bytes) and len(body) > LARGE_BYTES and not resp.compression:
                self._large = resp.body = LargeBody(body)
            elif type(resp) is WholeResponse and resp.is_whole and not self._upgraded:
                return self._finish_whole(request, resp)
        return super().finish_response(request, resp, start_time)

    async def _finish_whole(
        self, request: web.BaseRequest, response: WholeResponse
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response that is written at once; the same as `finish_response`, in one step."""
        request._finish()  # noqa: SLF001 - see the module
        try:
            if response.write_whole(request):
                await request.writer.drain()
        except ConnectionError:
            return response, True
        return response, False

    async def _drain_helper(self) -> None:
        # Called by the request's own task and only after a pause; uvloop calls `pause_writing` in another context.
        self._connections.unread.identify(self, current_request.get())
        await super()._drain_helper()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived. The way of a whole request, which is nearly every one, is the first half."""
        waiter = self._waiter
        if waiter is None:
            self._receive_meanwhile(data)
            return
        try:
            _parse(self, data)
        except Exception:  # noqa: BLE001 - what a parser fails at must not end in asyncio's log
            self.refuse(MALFORMED)
            return
        if not waiter.done():
            self._expect_head(data)
            return
        if self._messages:
            self._body = self._messages[-1][1]
        if self._head_started is not None:
            self._end_head()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse what the parser did not understand; it closes the connection.

        Raises:
            ConnectionError: always, for the answer is written already: the connection has no more to do.
        """
        del message  # it quotes the client
        if isinstance(exc, ConnectionError):
            raise exc
        if request.writer.output_size == 0:
            if isinstance(exc, HttpProcessingError):
                self.refuse(refusal_of(exc))
            elif isinstance(exc, Refused):
                self.refuse(exc.refusal, request_id=request_id_of(request))
            else:
                log.error("http.unhandled_error", exc_info=exc, **{"http.status": status})
                self.refuse(FAILED)
        raise ConnectionError("The answer is written.")

    def log_exception(self, *args: Any, exc_info: Any = None, **options: Any) -> None:
        """Log what is our mistake; a body that came to a bad end after its answer is not."""
        if not isinstance(exc_info, (web.RequestPayloadError, ConnectionError)):
            super().log_exception(*args, exc_info=exc_info, **options)

    def refuse(self, refusal: Refusal, *, request_id: str | None = None) -> None:
        """Answer without the application, and close.

        The writing side is closed at once. What still comes is ignored for a moment: a connection that is closed with
        unread bytes is reset, and then the client may never see the answer.
        """
        transport = self.transport
        if transport is None or self._force_close:
            return
        answer = self._connections.refusals.answer(
            refusal, self.peer, started=self._head_started, request_id=request_id
        )
        self._force_close = True  # and with that, nothing is parsed or answered any more
        transport.write(answer)
        if transport.can_write_eof():
            transport.write_eof()
        if self._waiter is not None:
            self._waiter.cancel()
        self._connections.linger(self)

    async def handle_spare(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a request of a connection over the bound: there is always room for a health probe."""
        manager = self._manager
        if manager is not None and (request.path in PROBES or self._connections.promote(self)):
            return await manager.request_handler(request)
        raise Refused(CROWDED)

    def make_spare(self) -> None:
        """Serve nothing but health probes here, until there is room."""
        self.is_spare = True
        self._request_handler = self.handle_spare

    def make_ordinary(self) -> None:
        """Serve everything."""
        self.is_spare = False
        if self._manager is not None:
            self._request_handler = self._manager.request_handler

    def close_after_next(self) -> None:
        """Have the next answer that is begun be the last one, which it says in its `Connection: close`."""
        self._request_factory = self._make_last_request
        request = self._current_request
        if request is not None and not self._messages:
            request._message = request._message._replace(should_close=True)  # noqa: SLF001 - see the module

    def _make_last_request(self, message: Any, *parts: Any) -> web.BaseRequest:
        manager = self._manager
        if manager is None:
            raise ConnectionError("The connection is closed.")
        if not self._messages:  # of requests that were sent at once, the last one
            message = message._replace(should_close=True)
        return manager.request_factory(message, *parts)

    @property
    def peer(self) -> str | None:
        """The address of the other end."""
        name = self.peername
        return str(name[0]) if isinstance(name, tuple) else None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being handled, or has been read and will be."""
        return self._waiter is None or self._waiter.done()

    @property
    def is_in_head(self) -> bool:
        """Whether a part of a head has arrived, and not all of it."""
        return (
            self._head_started is not None
            and self._head_bytes > 0
            and self._request_count == self._requests_before_head
        )

    @property
    def idle_since(self) -> float | None:
        """Since when nothing is under way, in the seconds of the loop's clock; None while something is."""
        if self.is_busy or self.is_in_head or self._force_close:
            return None
        return self._next_keepalive_close_time - self.keepalive_timeout

    def give_up_head(self) -> None:
        """Answer that the head has not come in time."""
        if self._request_count == self._requests_before_head:
            self.refuse(SLOW_HEAD)

    def _expect_head(self, data: bytes) -> None:
        """These bytes belong to a head that is not complete."""
        if self._head_started is None:
            if not data.strip(b"\r\n"):  # what some clients send after a body
                return
            self._head_started = perf_counter()
            self._head_bytes = 0
            self._requests_before_head = self._request_count
            self._connections.head_started(self)
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.refuse(LARGE_HEADER)

    def _end_head(self) -> None:
        self._head_started = None
        self._connections.head_ended(self)

    def _receive_meanwhile(self, data: bytes) -> None:
        """Parse what arrives while a request is handled: the rest of its body, or what comes after it."""
        if self._force_close:
            return
        body = self._body
        before = self._request_count
        is_within_body = body is not None and not body.is_eof()
        try:
            _parse(self, data)
        except Exception:  # noqa: BLE001 - see above
            self.refuse(MALFORMED)
            return
        if self._request_count == before:
            if not is_within_body:
                self._expect_head(data)
            return
        message, self._body = self._messages[-1]
        if body is not None and not body.is_eof() and isinstance(message, _ErrInfo):
            # The parser has given up within this body, and does not say so to those who wait for it.
            self._messages.pop()
            body.set_exception(web.RequestPayloadError("The body is malformed."))
        elif self._head_started is not None:
            self._end_head()


class ConnectionServer(web.Server):
    """What makes a connection of each that is accepted.

    Args:
        app: the application, started.
        plain: aiohttp's server of the application.
        make_connections: called on the loop that serves.
    """

    def __init__(
        self, app: web.Application, plain: web.Server, make_connections: Callable[[], Connections]
    ) -> None:
        super().__init__(
            meet_expectations(Dispatch(app, plain.request_handler)),
            request_factory=plain.request_factory,
            handler_cancellation=False,  # a client that hangs up does not undo half a write
        )
        self._table = table = make_connections()
        self._backlog = Backlog(self._make_connection, lambda: table.room, table.__len__)
        self._is_draining = False

    def watch_backlog(self, listener: socket.socket) -> None:
        """Accept as many as wait on this socket, not one in each turn of the loop."""
        self._backlog.watch(listener)

    async def drain(self) -> None:
        """Answer what still comes on the open connections, once each, for a short while or until all are closed.

        A connection that is closed in the moment in which its client sends a request loses that request: only an answer
        can say that no other will follow.
        """
        self._is_draining = True
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.close_after_next()
        until = self._loop.time() + _DRAIN_SECONDS
        while self.connections and self._loop.time() < until:  # noqa: ASYNC110 - aiohttp says no other way
            await asyncio.sleep(_LOOK_SECONDS)

    def __call__(self) -> Connection:
        """A connection that is not made yet, for one that the loop has accepted."""
        self._backlog.look_soon()
        return self._make_connection()

    def _make_connection(self) -> Connection:
        connection = Connection(
            self,
            self._table,
            loop=self._loop,
            access_log=None,  # the tracing middleware writes the one line
            keepalive_timeout=KEEPALIVE_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            lingering_time=_LINGER_SECONDS,
            auto_decompress=False,  # by `read_content`, which knows when to stop
        )
        if self._is_draining:
            connection.close_after_next()
        return connection


class ServiceRunner(web.AppRunner):
    """Runs an application on connections with deadlines.

    Args:
        app: the application.
        make_connections: called on the loop that serves.
        options: of `web.AppRunner`.
    """

    def __init__(
        self,
        app: web.Application,
        make_connections: Callable[[], Connections],
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self._make_connections = make_connections

    async def cleanup(self) -> None:
        """Accept no more connections, answer what comes on those that are open, then stop."""
        for site in self.sites:
            await site.stop()
        await self.shutdown()  # aiohttp does it again, after the last answers
        if isinstance(self.server, ConnectionServer):
            await self.server.drain()
        await super().cleanup()

    def _reg_site(self, site: web.BaseSite) -> None:
        site._backlog = _BACKLOG  # noqa: SLF001 - gunicorn's worker makes the site, with aiohttp's default of 128
        super()._reg_site(site)
        if isinstance(site, web.SockSite) and isinstance(self.server, ConnectionServer):
            self.server.watch_backlog(site._sock)  # noqa: SLF001 - likewise

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return ConnectionServer(self.app, plain, self._make_connections)

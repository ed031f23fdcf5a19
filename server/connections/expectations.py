"""`Expect: 100-continue` is met when somebody reads the body: a request that is refused before does not send it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict

from server.api.bodies import EXPECTS_CONTINUE
from server.connections.refusals import UNKNOWN_EXPECTATION, Refused

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


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

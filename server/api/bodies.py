"""Reading a request's body: no more of it than a route accepts, inflated as it is read, with a deadline."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator

from aiohttp import hdrs, web

from server.api.services import services_of
from server.errors import (
    BodyTooLarge,
    ClientDisconnected,
    IncompleteBody,
    RequestTimeout,
    UnsupportedContentEncoding,
)

# Whether the client sends its body only after an interim answer; False once it has got that.
EXPECTS_CONTINUE = web.RequestKey("expects_continue", bool)
_INFLATED_AT_ONCE = 256 << 10
# A body that moves, but hardly, has this many deadlines as a whole, and a second for each so many bytes.
_MOST_DEADLINES = 10
_SLOWEST_BYTES_PER_SECOND = 1024
_PLAIN = frozenset({"", "identity"})
_GZIP = frozenset({"gzip", "x-gzip"})
_ENCODINGS = _PLAIN | _GZIP | {"deflate"}


async def read_content(request: web.Request, max_bytes: int) -> bytes:
    """The whole body, without its Content-Encoding. To be called once.

    Args:
        request: whose body it is.
        max_bytes: the most that is read, and the most that it may inflate to.

    Raises:
        BodyTooLarge: it is larger.
        UnsupportedContentEncoding: it is encoded in a way that we can't undo.
        IncompleteBody: it did not arrive whole, or is not what its encoding says.
        RequestTimeout: it did not move for the time that the settings give it.
        ClientDisconnected: the client hung up before its end.
    """
    encoding = _encoding_of(request)
    if (request.content_length or 0) > max_bytes:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    content = request.content
    await _ask_for_body(request)
    seconds = services_of(request).settings.request_body_timeout_ms / 1000.0
    latest = asyncio.get_running_loop().time() + _MOST_DEADLINES * seconds
    body = bytearray()
    arrived = 0
    inflater: _Inflater | None = None
    while not content.at_eof():
        piece = await _next_piece(request, seconds, latest + arrived / _SLOWEST_BYTES_PER_SECOND)
        arrived += len(piece)
        if encoding in _PLAIN:
            body += piece
        elif piece:
            inflater = inflater or _Inflater(encoding, piece)
            for inflated in inflater.feed(piece):
                body += inflated
                if len(body) > max_bytes:
                    break
                if len(inflated) == _INFLATED_AT_ONCE:
                    await asyncio.sleep(0)  # others have their turn
        if max(arrived, len(body)) > max_bytes:
            raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    if inflater is not None and not inflater.is_complete:
        raise IncompleteBody
    return bytes(body)


def _encoding_of(request: web.Request) -> str:
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding not in _ENCODINGS:
        raise UnsupportedContentEncoding
    return encoding


async def _ask_for_body(request: web.Request) -> None:
    """Where the client waits to be asked."""
    if request.get(EXPECTS_CONTINUE) and not request.content.is_eof():
        request[EXPECTS_CONTINUE] = False
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun


async def _next_piece(request: web.Request, seconds: float, latest: float) -> bytes:
    """What has arrived, or the next that does.

    Args:
        request: whose body it is.
        seconds: how long it may stand still.
        latest: when it has to be here as a whole, on the loop's clock.
    """
    content = request.content
    try:
        if content.is_eof():
            return content.read_nowait()
        async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + seconds, latest)):
            return await content.readany()
    except TimeoutError as error:
        content.feed_eof()  # nothing more is read of it, not even to drop it
        raise RequestTimeout from error
    except web.RequestPayloadError as error:
        raise IncompleteBody from error
    except (OSError, RuntimeError) as error:  # the latter: it was lost before we waited
        if request.transport is None:
            raise ClientDisconnected from error
        raise


class _Inflater:
    """Undoes gzip or deflate, piece by piece.

    Args:
        encoding: which of them.
        start: of the body: some clients send deflate without the frame that RFC 1950 wants.
    """

    def __init__(self, encoding: str, start: bytes) -> None:
        if encoding in _GZIP:
            window = 16 + zlib.MAX_WBITS
        else:
            has_frame = start[0] & 0x0F == zlib.DEFLATED
            window = zlib.MAX_WBITS if has_frame else -zlib.MAX_WBITS
        self._zlib = zlib.decompressobj(window)

    @property
    def is_complete(self) -> bool:
        """Whether the end has been seen."""
        return self._zlib.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What a piece inflates to, in pieces of a bounded size.

        Raises:
            IncompleteBody: it is not what the encoding says.
        """
        while piece:
            if self._zlib.eof:
                raise IncompleteBody("There is something after the end of the compressed body.")
            try:
                yield self._zlib.decompress(piece, _INFLATED_AT_ONCE)
            except zlib.error as error:
                raise IncompleteBody from error
            piece = self._zlib.unconsumed_tail or self._zlib.unused_data

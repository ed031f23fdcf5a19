"""Responses that are written whole: the head as one text, together with the body, in one write.

aiohttp keeps the headers of a response in a dictionary without cases, looks into it a dozen times while it prepares
the response, and then copies it character by character. Here the headers are lines of text from the begin. Whatever
needs the dictionary (`headers`, cookies, compression by aiohttp, a body in pieces) gets it, and with it aiohttp's own
way of writing; `tests/api/test_whole_response.py` compares the bytes of both and names the version that was read.

A value from outside comes in by `header_line`, which refuses control characters. Signals (`on_response_prepare`) are
not sent.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import cached_property, lru_cache
from http import HTTPStatus
from time import time
from typing import Final

from aiohttp import ClientConnectionResetError, HttpVersion, HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_WITHOUT_BODY: Final = frozenset({100, 101, 102, 103, 204, 304})


def header_line(name: str, value: str) -> str:
    """A line of a head.

    Raises:
        ValueError: it would be more than one line, or contain another control character.
    """
    if _FORBIDDEN.search(value) or _FORBIDDEN.search(name):
        raise ValueError(f"the header {name!r} contains a control character")
    return f"{name}: {value}\r\n"


class WholeResponse(web.Response):
    """A response whose head is one text until something needs a dictionary of its headers.

    Args:
        body: its body.
        status: its status.
        lines: of its head, each with its line break; made by `header_line`, or of texts that are known to be safe. With
            a body, Content-Type is among them. Content-Length, Date and Connection are added when it is written.
    """

    # What `web.Response.__init__` would set.
    _zlib_executor_size = 1024
    _zlib_executor = None
    _is_whole = False

    def __init__(self, body: bytes | None = None, *, status: int = 200, lines: str = "") -> None:
        self._state = {}
        self._status = status
        self._reason = _PHRASES.get(status, "")
        self._body = body
        self._lines = lines

    @cached_property
    def _headers(self) -> CIMultiDict[str]:  # type: ignore[override]
        return CIMultiDict(pairs_of(self._lines))

    @property
    def lines(self) -> str | None:
        """The lines of the head; None once there is a dictionary in their place."""
        return None if "_headers" in self.__dict__ else self._lines

    @lines.setter
    def lines(self, lines: str) -> None:
        self._lines = lines

    @property
    def is_whole(self) -> bool:
        """Whether all of it can be written at once: nothing has needed a dictionary, and nothing was sent."""
        return not (
            "_headers" in self.__dict__
            or self._compression
            or self._cookies
            or self._eof_sent
            or self._payload_writer is not None
        )

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Begin. The head is written together with the body."""
        if not self.is_whole:
            return await super().prepare(request)
        self._is_whole = True
        self._req = request
        writer = self._payload_writer = request.writer
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Write all of it, and wait where the client reads more slowly than it is answered.

        Raises:
            ClientConnectionResetError: the client has gone.
        """
        request = self._req
        if not self._is_whole or request is None:
            await super().write_eof(data)
            return
        if self.write_whole(request):
            await request.writer.drain()
        self._req = self._payload_writer = None

    def write_whole(self, request: web.BaseRequest) -> bool:
        """Write all of it at once; only where it `is_whole`.

        Returns:
            whether to wait for the client, which reads more slowly than it is answered.

        Raises:
            ClientConnectionResetError: the client has gone.
        """
        protocol, message = request.protocol, request._message  # noqa: SLF001 - properties take longer than the rest
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")
        if self._keep_alive is None:
            self._keep_alive = not message.should_close
        written = self._as_bytes(message.method, message.version)
        writer = request.writer
        writer.output_size += len(written)
        self._body_length = writer.output_size
        transport.write(written)
        self._eof_sent = True
        return protocol.writing_paused

    def as_last(self, reason: str) -> bytes:
        """All of it for a client of HTTP/1.1 whose connection is closed after it, where there is no request."""
        self._reason = reason
        self._keep_alive = False
        return self._as_bytes(hdrs.METH_GET, HttpVersion11)

    def _as_bytes(self, method: str, version: HttpVersion) -> bytes:
        status, body = self._status, self._body
        assert body is None or isinstance(body, (bytes, bytearray))  # noqa: S101 - others have needed `_headers`
        is_head = method == hdrs.METH_HEAD
        length = connection = ""
        if status in _WITHOUT_BODY:
            body = None
        elif body:
            length = f"Content-Length: {len(body)}\r\n"
        elif not is_head:
            length = "Content-Length: 0\r\n"
        if self._keep_alive:
            if version == HttpVersion10:
                connection = "Connection: keep-alive\r\n"
        elif version == HttpVersion11:
            connection = "Connection: close\r\n"
        head = (
            f"{_status_line(version, status, self._reason)}{self._lines}{length}"
            f"{_date_line(int(time()))}{connection}\r\n"
        ).encode()
        return head + body if body and not is_head else head


def pairs_of(lines: str) -> list[tuple[str, str]]:
    """The names and values of the lines of a head."""
    pairs = []
    for line in lines.split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        pairs.append((name, value))
    return pairs


def add_lines(response: web.StreamResponse, lines: str) -> None:
    """Add lines to the head of any response. Args: lines: as of a `WholeResponse`."""
    if isinstance(response, WholeResponse) and "_headers" not in response.__dict__:
        response._lines += lines  # noqa: SLF001 - every response comes by here
    else:
        response.headers.extend(pairs_of(lines))


def size_of(response: web.StreamResponse) -> int:
    """The bytes of the body of any response; 0 where it is none, or one that is made while it is sent."""
    # The first is quicker: `web.Response` is an abstract base class.
    if type(response) is WholeResponse or isinstance(response, web.Response):
        body = response.body
        return len(body) if isinstance(body, bytes) else 0
    return 0


def value_of(response: web.StreamResponse, name: str) -> str | None:
    """The value of a header of any response; None where there is none. Args: name: as the lines spell it."""
    if isinstance(response, WholeResponse) and (lines := response.lines) is not None:
        _, found, rest = f"\r\n{lines}".partition(f"\r\n{name}: ")
        return rest.partition("\r\n")[0] if found else None
    return response.headers.get(name)


def vary_by(response: web.StreamResponse, name: str) -> None:
    """Add the name of a header that any response depends on to its `Vary`."""
    vary = value_of(response, hdrs.VARY)
    value = name if vary is None else f"{vary}, {name}"
    if isinstance(response, WholeResponse) and (lines := response.lines) is not None:
        line = f"{hdrs.VARY}: {value}\r\n"
        response.lines = lines + line if vary is None else lines.replace(f"{hdrs.VARY}: {vary}\r\n", line, 1)
    else:
        response.headers[hdrs.VARY] = value


@lru_cache(maxsize=256)
def _status_line(version: HttpVersion, status: int, reason: str | None) -> str:
    return f"HTTP/{version[0]}.{version[1]} {status} {reason}\r\n"


@lru_cache(maxsize=4)
def _date_line(second: int) -> str:
    return f"Date: {formatdate(second, usegmt=True)}\r\n"

"""Responses that are written whole: byte for byte what aiohttp writes of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from server.api.whole_response import WholeResponse, add_lines, header_line, pairs_of, value_of, vary_by

_SERVER = "Server: mastery\r\n"
_TYPE = "Content-Type: application/json\r\n"
_DATE = re.compile(rb"\r\nDate: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n")

names = st.from_regex(r"X-[A-Za-z][A-Za-z0-9-]{0,15}", fullmatch=True)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FFF, exclude_characters="\x7f"), max_size=40
)
heads = st.lists(st.tuples(names, values), max_size=6).map(
    lambda pairs: "".join(header_line(*pair) for pair in pairs)
)
bodies = st.one_of(st.none(), st.just(b""), st.binary(max_size=60), st.just(b"x" * 5000))


class _Line(asyncio.Transport):
    """The other end of a connection: keeps what is written, each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


Exchange = Callable[[bytes, Callable[[], web.StreamResponse]], tuple[list[bytes], bool]]


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    """What a server of aiohttp writes in answer to a request, and whether it closes the connection then."""

    async def run(request: bytes, respond: Callable[[], web.StreamResponse]) -> tuple[list[bytes], bool]:
        async def handle(_request: web.BaseRequest) -> web.StreamResponse:
            return respond()

        line, connection = _Line(), web.Server(handle)()
        connection.connection_made(line)
        connection.data_received(request)
        for _ in range(12):  # turns of the loop
            await asyncio.sleep(0)
        is_closed = line.is_closed
        connection.connection_lost(None)
        return [_DATE.sub(b"\r\nDate: now\r\n", data) for data in line.writes], is_closed

    with asyncio.Runner() as runner:
        yield lambda request, respond: runner.run(run(request, respond))


def request_of(method: str = "GET", version: str = "1.1", connection: str = "") -> bytes:
    return f"{method} /x HTTP/{version}\r\nHost: x\r\n{connection}\r\n".encode()


def both(
    body: bytes | None, status: int, lines: str, change: Callable[[web.Response], object] = str
) -> list[Callable[[], web.Response]]:
    """The same response as aiohttp's own and as ours."""

    def plain() -> web.Response:
        response = web.Response(body=body, status=status, headers=CIMultiDict(pairs_of(lines)))
        change(response)
        return response

    def whole() -> web.Response:
        response = WholeResponse(body, status=status, lines=lines)
        change(response)
        return response

    return [plain, whole]


@given(
    head=heads,
    body=bodies,
    status=st.sampled_from([200, 201, 204, 206, 304, 400, 404, 408, 429, 499, 500, 503]),
    method=st.sampled_from(["GET", "HEAD", "PUT", "OPTIONS", "DELETE"]),
    version=st.sampled_from(["1.0", "1.1"]),
    connection=st.sampled_from(["", "Connection: close\r\n", "Connection: keep-alive\r\n"]),
    closes=st.booleans(),
)
def test_it_writes_the_bytes_that_aiohttp_would(
    exchange: Exchange,
    head: str,
    body: bytes | None,
    status: int,
    method: str,
    version: str,
    connection: str,
    *,
    closes: bool,
) -> None:
    """For any head and body, with HEAD, 204 and 304, in HTTP/1.0 and 1.1, on connections that are kept or closed."""
    request = request_of(method, version, connection)
    change = web.Response.force_close if closes else str
    plain, whole = both(body, status, f"{head}{_TYPE}{_SERVER}", change)
    (expected, plain_closes), (actual, whole_closes) = exchange(request, plain), exchange(request, whole)

    assert b"".join(expected) == b"".join(actual)
    assert plain_closes == whole_closes
    assert len(actual) == 1


def change_the_dictionary(response: web.Response) -> None:
    response.headers["X-Before"] = "1"
    vary_by(response, "Origin")
    add_lines(response, "X-Late: 1\r\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda response: response.set_cookie("a", "b"),
        lambda response: response.enable_compression(web.ContentCoding.gzip),
        lambda response: response.enable_chunked_encoding(),
        lambda response: response.headers.update({"X-Late": "1"}),
        lambda response: setattr(response, "content_type", "text/html"),
        lambda response: setattr(response, "body", memoryview(b"in pieces")),
        lambda response: setattr(response, "text", "a text"),
        lambda response: response.set_status(418),
        lambda response: add_lines(response, "X-Late: 1\r\nX-Later: 2\r\n"),
        lambda response: vary_by(response, "Origin"),
        change_the_dictionary,
    ],
)
def test_what_changes_a_response_changes_this_one(
    exchange: Exchange, change: Callable[[web.Response], object]
) -> None:
    """Cookies, compression, chunks and the dictionary of headers work as with a response of aiohttp's."""
    lines = f"Vary: Authorization\r\n{_TYPE}{_SERVER}"
    plain, whole = both(b'{"a": 1}' * 20, 200, lines, change)

    expected, actual = exchange(request_of(), plain)[0], exchange(request_of(), whole)[0]

    assert b"".join(expected) == b"".join(actual)


def test_its_headers_are_the_lines_of_its_head() -> None:
    """What asks for the dictionary of headers finds them there, whatever the case of the names."""
    response = WholeResponse(b"{}", lines=f"{_TYPE}Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n")
    add_lines(response, 'ETag: W/"x"\r\n')

    assert 'W/"x"' == value_of(response, "ETag")
    assert "application/json" == response.content_type
    assert ["a=1", "b=2"] == response.headers.getall("set-cookie")
    assert 'W/"x"' == value_of(response, "ETag") == response.headers["etag"]
    assert value_of(response, "Vary") is None


@given(
    value=st.text(max_size=20),
    control=st.sampled_from(["\r", "\n", "\x00", "\x1f", "\x7f"]),
    at=st.integers(0, 20),
)
def test_a_value_with_a_control_character_is_refused(value: str, control: str, at: int) -> None:
    """No value ends its line and begins another header."""
    with pytest.raises(ValueError, match="control character"):
        header_line("Location", value[:at] + control + value[at:])
    with pytest.raises(ValueError, match="control character"):
        header_line(f"X{control}", "1")


async def test_a_client_that_reads_slowly_is_waited_for() -> None:
    """The response ends when the connection takes more, so a client can't fill the memory."""
    line = _Line()

    async def handle(_request: web.BaseRequest) -> web.StreamResponse:
        return WholeResponse(b"x", lines=_TYPE)

    connection = web.Server(handle)()
    connection.connection_made(line)
    connection.pause_writing()
    connection.data_received(request_of() * 2)
    for _ in range(12):
        await asyncio.sleep(0)
    assert len(line.writes) == 1
    connection.resume_writing()
    for _ in range(12):
        await asyncio.sleep(0)
    assert len(line.writes) == 2
    connection.connection_lost(None)


async def test_nothing_is_written_to_a_connection_that_closes() -> None:
    """A client that has gone is no error of the service's."""
    line = _Line()

    async def handle(_request: web.BaseRequest) -> web.StreamResponse:
        line.close()
        return WholeResponse(b"x", lines=_TYPE)

    connection = web.Server(handle)()
    connection.connection_made(line)
    connection.data_received(request_of())
    for _ in range(12):
        await asyncio.sleep(0)
    assert line.writes == []
    connection.connection_lost(None)


def test_the_version_of_aiohttp_is_the_one_that_was_read() -> None:
    """When this fails after an update, read its web_response.py and web_request.py before this is changed."""
    assert aiohttp.__version__.startswith("3.14.")
    assert "_message" in web.BaseRequest.ATTRS

"""Clients that ask for much and do not read it are cut, before they fill the memory or take every place."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from server.api.assets import asset_names
from tests.connections.conftest import Serve, Watched
from tests.connections.raw import WAIT_SECONDS, Client, connected, get
from tests.support.waiting import eventually

# The largest answer for everybody (1.7 MB). Several of them are more than the system's buffers take (2.5 MB).
(_LARGE,) = (f"/api/docs/{name}" for name in asset_names() if name.startswith("swagger-ui-bundle"))
_ANSWERS = 4
_RECEIVE_BYTES = 4096
_ID = "the-reader-that-does-not-read"


@contextmanager
def unread(port: int, *headers: str) -> Iterator[socket.socket]:
    """A connection that has asked for large answers, and has begun to be sent it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        client.settimeout(WAIT_SECONDS)
        client.connect(("127.0.0.1", port))
        client.sendall(get(_LARGE, *headers) * (_ANSWERS - 1) + get(_LARGE, *headers, "Connection: close"))
        assert b"HTTP/1.1 200 OK" == client.recv(15)
        yield client


def is_cut(client: socket.socket) -> bool:
    """Whether the server has reset the connection; that can be asked once, for asking clears it."""
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def cuts(watched: Watched, reason: str) -> float:
    """How many the metric says were cut for a reason."""
    return watched.metric(f'http_unread_responses_cut_total{{reason="{reason}"}}')


def read_answer(client: Client) -> bytes:
    """The whole answer to the request that a client has sent."""
    answer = client.read_answer()
    assert 200 == answer.status
    return answer.body


@pytest.fixture(scope="module")
def quick(serve: Serve) -> Iterator[Watched]:
    """A service with a short deadline for responses."""
    with serve(RESPONSE_TIMEOUT_MS="500") as watched:
        yield watched


def test_slow_readers_that_stand_still_are_cut(quick: Watched) -> None:
    """The connection is gone after the deadline, counted, and logged with its request; others are served meanwhile."""
    before = cuts(quick, "timeout")
    with unread(quick.port, f"X-Request-ID: {_ID}") as client:
        with connected(quick.port) as other:
            other.send(get(_LARGE))
            read_answer(other)
        eventually(lambda: is_cut(client), "it is cut")
    line = quick.wait_for_line("http.response_cut", request_id=_ID)
    assert ("timeout", "127.0.0.1", "warning") == (line["reason"], line["client_ip"], line["level"])
    assert 500 <= line["still_ms"]
    assert 0 < line["unsent_bytes"]
    eventually(lambda: cuts(quick, "timeout") == before + 1, "it is counted")
    eventually(lambda: quick.metric("http_connections") <= 1, "nothing is left of it")


def test_slow_readers_that_read_on_get_everything(quick: Watched) -> None:
    """An answer that takes many times the deadline is sent to its end, as long as it moves."""
    before = cuts(quick, "timeout")
    with connected(quick.port) as fast, unread(quick.port) as client:
        fast.send(get(_LARGE))
        expected = read_answer(fast)
        received = bytearray()
        # Each look of the service finds it moved: it reads all the time, in as many steps as its small buffer needs.
        while chunk := client.recv(_RECEIVE_BYTES):
            received += chunk
    assert received.endswith(b"\r\n\r\n" + expected)
    assert before == cuts(quick, "timeout")


def test_slow_readers_hold_no_more_than_the_buffer(serve: Serve) -> None:
    """Beyond RESPONSE_BUFFER_MB, the one that has stood still for longest makes room, long before its deadline."""
    with serve(RESPONSE_BUFFER_MB="3") as watched, ExitStack() as stack:
        clients = [stack.enter_context(unread(watched.port)) for _ in range(6)]
        eventually(lambda: cuts(watched, "buffer") > 0, "some are cut")
        eventually(lambda: is_cut(clients[0]), "the first is cut")
        assert not is_cut(clients[-1])
        with connected(watched.port) as other:
            other.send(get(_LARGE))
            read_answer(other)
        assert 0 == cuts(watched, "timeout")


def test_slow_readers_lock_nobody_out(serve: Serve) -> None:
    """Where they have every place, the one that has stood still for longest makes room for a new connection."""
    with serve(MAX_CONNECTIONS="4") as watched, ExitStack() as stack:
        eventually(lambda: watched.metric("http_connections") <= 1, "the connections of the start are closed")
        clients = [stack.enter_context(unread(watched.port)) for _ in range(4)]

        def can_ask() -> bool:
            with connected(watched.port) as client:
                client.send(get("/api/docs", "Connection: close"))
                return client.last_answer().status == 200

        eventually(can_ask, "an ordinary request is served")
        assert is_cut(clients[0])
        assert not is_cut(clients[-1])
        assert 0 < cuts(watched, "connections")
        assert 0 == cuts(watched, "timeout") + cuts(watched, "buffer")

"""Clients that ask for much and do not read it are cut, before they fill the memory or take every place."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from server.api.assets import asset_names
from tests.conftest import run_sql
from tests.connections.conftest import Serve, Watched
from tests.connections.raw import WAIT_SECONDS, Client, connected, get
from tests.support.waiting import eventually

# The largest answer for everybody (1.7 MB): ten times what the system takes of it.
(_LARGE,) = (f"/api/docs/{name}" for name in asset_names() if name.startswith("swagger-ui-bundle"))
_RECEIVE_BYTES = 4096
_ID = "the-reader-that-does-not-read"
# What the default of RESPONSE_BUFFER_MB allows, and what making and reading answers takes beside it.
_BUFFER_BYTES = _BESIDE_BYTES = 64 << 20
_READERS = 100
_CLASS = "11111111-1111-4111-8111-111111111111"
_ADD_CLASS = """
    INSERT INTO classes (id, name, is_published) VALUES ('@', 'Large', true);
    INSERT INTO decks (id, class_id, name, is_published) VALUES ('@', '@', 'Large', true);
    INSERT INTO flashcards (deck_id, question, answer, is_published)
    SELECT '@', 'Question ' || n, repeat('answer ', 570), true FROM generate_series(1, 500) AS n
""".replace("@", _CLASS)


@contextmanager
def asking(port: int, path: str, *headers: str) -> Iterator[socket.socket]:
    """A connection that has asked for something, and has hardly any room for it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        client.settimeout(WAIT_SECONDS)
        client.connect(("127.0.0.1", port))
        client.sendall(get(path, *headers))
        yield client


@contextmanager
def unread(port: int, *headers: str) -> Iterator[socket.socket]:
    """A connection that has asked for a large answer, and has begun to be sent it."""
    with ExitStack() as stack:
        admitted: list[socket.socket] = []

        def is_admitted() -> bool:
            client = stack.enter_context(asking(port, _LARGE, *headers, "Connection: close"))
            status = client.recv(15)
            if status == b"HTTP/1.1 200 OK":
                admitted.append(client)
            else:  # while all others are so young that they may still read
                assert b"HTTP/1.1 503 Se" == status
            return bool(admitted)

        eventually(is_admitted, "there is room for it")
        yield admitted[0]


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


def highest_memory(pid: int) -> int:
    """The most resident memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return kilobytes * 1024


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


def test_slow_readers_that_have_read_everything_are_slow_no_longer(quick: Watched) -> None:
    """Once an answer is sent, nothing of it is held, and its connection lives for as long as any other."""
    before = cuts(quick, "timeout")
    with connected(quick.port) as client:
        client.send(get(_LARGE))
        eventually(lambda: quick.metric("http_unread_response_bytes") > 0, "it does not read yet")
        read_answer(client)
        eventually(lambda: quick.metric("http_unread_response_bytes") == 0, "nothing is held")
        assert before == cuts(quick, "timeout")
        client.send(get(_LARGE))
        read_answer(client)
    assert before == cuts(quick, "timeout")


def test_slow_readers_hold_no_more_than_the_buffer(serve: Serve) -> None:
    """Beyond RESPONSE_BUFFER_MB, a new one takes the place of the one that has stood still for longest."""
    with serve(RESPONSE_BUFFER_MB="4") as watched, ExitStack() as stack:
        clients = [stack.enter_context(unread(watched.port, f"X-Request-ID: {_ID}-{n}")) for n in range(4)]
        for client in clients[:2]:
            eventually(lambda: is_cut(client), "it is cut")  # noqa: B023 - used at once
        assert [False, False] == [is_cut(client) for client in clients[2:]]
        assert 2 == cuts(watched, "buffer")
        for n in range(2):
            line = watched.wait_for_line("http.response_cut", request_id=f"{_ID}-{n}")
            assert "buffer" == line["reason"]
        assert 2 == len(watched.lines("http.response_cut"))
        with connected(watched.port) as other:
            other.send(get("/api/docs"))
            read_answer(other)
        assert 0 == cuts(watched, "timeout")


def test_slow_readers_that_read_on_stay_and_those_that_stand_still_go(serve: Serve) -> None:
    """Where there is no room for all, a client that has read a part of its answer is the last to be cut."""
    with serve(RESPONSE_BUFFER_MB="4") as watched, ExitStack() as stack:
        reading = stack.enter_context(unread(watched.port))
        received = 0
        while received < 400_000:
            received += len(reading.recv(_RECEIVE_BYTES))
        still = stack.enter_context(unread(watched.port))  # and so it has moved later than the other
        stack.enter_context(unread(watched.port))
        eventually(lambda: is_cut(still), "the one that stood still is cut")
        assert not is_cut(reading)


def test_slow_readers_of_large_answers_fill_no_memory(serve: Serve) -> None:
    """A hundred of 2 MB take RESPONSE_BUFFER_MB, default settings; others are served, and the memory comes back."""
    with serve() as watched, ExitStack() as stack:
        service = watched.service
        run_sql(service.environment["DATABASE_URL"], _ADD_CLASS)
        path, token = f"/api/classes/{_CLASS}/study?mode=all", f"Authorization: Bearer {service.user_token}"
        with connected(watched.port) as other:
            for _ in range(5):
                other.send(get(path, token))
                expected = read_answer(other)
            assert 2_000_000 < len(expected)
            (worker,) = psutil.Process(service.process.pid).children()
            start = worker.memory_info().rss
            for _ in range(_READERS):
                stack.enter_context(asking(watched.port, path, token))
            eventually(
                lambda: watched.metric("http_unread_response_bytes") > _BUFFER_BYTES / 2, "many stand still"
            )
            eventually(lambda: cuts(watched, "buffer") > 0, "some are cut")
            other.send(get("/api/classes", token))
            read_answer(other)

            def is_served() -> bool:
                other.send(get(path, token))
                answer = other.read_answer()
                if answer.status == 503:
                    assert "too_many_unread" == answer.problem["code"]
                    assert 1 <= int(answer.headers["retry-after"])
                return answer.body == expected

            eventually(is_served, "a client that reads gets its answer")
        assert watched.metric("http_unread_response_bytes") <= _BUFFER_BYTES
        assert highest_memory(worker.pid) <= start + _BUFFER_BYTES + _BESIDE_BYTES
        stack.close()
        eventually(lambda: watched.metric("http_unread_response_bytes") == 0, "nothing is held")
        eventually(lambda: worker.memory_info().rss < start + _BESIDE_BYTES / 2, "memory is given back")
        lines = watched.lines("http.response_cut")
        assert cuts(watched, "buffer") == len([line for line in lines if line["reason"] == "buffer"])


def test_slow_readers_lock_nobody_out(serve: Serve) -> None:
    """Where they have every place, the one that has stood still for longest makes room for a new connection."""
    with serve(MAX_CONNECTIONS="4") as watched, ExitStack() as stack:
        watched.wait_until_alone()
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

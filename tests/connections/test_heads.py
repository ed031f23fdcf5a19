"""Heads and bodies that never end: a deadline counts from the first byte, and the answer is 408."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import pytest

from server.connections.protocol import KEEPALIVE_SECONDS
from server.settings import Settings
from tests.connections.conftest import Serve, Watched
from tests.connections.raw import Client, connected, get, post
from tests.test_settings import GOOD

UNFINISHED = b"GET /livez HTTP/1.1\r\nHost: mastery\r\nX-Api-Key: sesame"


@pytest.fixture(scope="module")
def quick(serve: Serve) -> Iterator[Watched]:
    """A service whose deadlines are short."""
    with serve(REQUEST_HEAD_TIMEOUT_MS="500", REQUEST_BODY_TIMEOUT_MS="500") as watched:
        yield watched


def test_share_08_a_head_that_never_ends_is_408_after_ten_seconds(serve: Serve) -> None:
    """With the default settings: nothing at all, a part, and a byte now and then, which does not move the deadline."""
    with serve() as watched, ExitStack() as stack:
        clients = {name: stack.enter_context(connected(watched.port)) for name in ("silent", "part", "drip")}
        begun = monotonic()
        clients["part"].send(UNFINISHED)
        clients["drip"].drip(b"GET /livez HTTP/1.1\r\n" + b"X-Slow: loris\r\n" * 1000, every_seconds=0.1)
        for client in clients.values():
            answer = client.last_answer()
            answer.check_problem(408)
            answer.check_new_id()
            assert "request_timeout" == answer.problem["code"]
        assert monotonic() - begun > 9
        assert {"head_timeout"} == {line["reason"] for line in watched.lines("http.refused")}
        assert b"sesame" not in watched.log.read_bytes()


def test_share_08_the_deadlines_are_settings() -> None:
    """10 s for a head and 30 s for a body that stands still, unless the environment says otherwise."""
    settings = Settings.from_env(GOOD)
    assert (10_000, 30_000) == (settings.request_head_timeout_ms, settings.request_body_timeout_ms)
    changed = {"REQUEST_HEAD_TIMEOUT_MS": "1", "REQUEST_BODY_TIMEOUT_MS": "2"}
    settings = Settings.from_env({**GOOD, **changed})
    assert (1, 2) == (settings.request_head_timeout_ms, settings.request_body_timeout_ms)
    assert KEEPALIVE_SECONDS > 90  # the platform's router closes its idle connections after that


def test_share_08_a_later_head_has_the_same_deadline(quick: Watched) -> None:
    """On a connection that has been used, it counts from the first byte of the next head."""
    with connected(quick.port) as client:
        client.send(get("/livez"))
        assert 200 == client.read_answer().status
        client.send(UNFINISHED)
        client.last_answer().check_problem(408)


def test_share_08_an_idle_connection_is_kept(quick: Watched) -> None:
    """Between requests no head is awaited; an empty line after a body, as old clients send it, begins none."""
    with connected(quick.port) as idle, connected(quick.port) as after_body, connected(quick.port) as later:
        idle.send(get("/livez"))
        after_body.send(post("/api/auth/login", body=b"{}") + b"\r\n")
        assert (200, 400) == (idle.read_answer().status, after_body.read_answer().status)
        after_body.send(b"\r\n")
        for _ in range(2):  # twice the deadline, by the server's own clock
            with connected(quick.port) as silent:
                assert 408 == silent.last_answer().status
        assert 408 == later.last_answer().status
        for client in (idle, after_body):
            client.send(get("/livez"))
            assert 200 == client.read_answer().status


@pytest.mark.parametrize(
    "beginning",
    [
        post("/api/auth/login", length=100, body=b'{"email": '),
        post("/api/auth/login", "Transfer-Encoding: chunked", body=b"5\r\n{"),
        post("/api/auth/login", length=100),
    ],
    ids=["length", "chunked", "nothing"],
)
def test_share_08_a_body_that_stands_still_is_408(quick: Watched, beginning: bytes) -> None:
    """Its connection is closed, and the request's line says 408."""
    with connected(quick.port) as client:
        client.send(beginning)
        answer = client.last_answer()
    answer.check_problem(408)
    line = quick.wait_for_line("http.request", request_id=answer.headers["x-request-id"])
    assert (408, "/api/auth/login", "request_timeout") == (
        line["http.status"], line["http.route"], line["error_code"],
    )  # fmt: skip


def test_share_08_an_import_that_stands_still_is_408(quick: Watched) -> None:
    """The route with a limit of its own has the same deadline."""
    service = quick.service
    _, classes = service.request("GET", "/api/admin/decks?limit=1", token=service.admin_token)
    deck = classes.partition('"id":"')[2][:36]
    with connected(quick.port) as client:
        client.send(
            (
                f"POST /api/admin/decks/{deck}/import HTTP/1.1\r\nHost: mastery\r\nContent-Length: 100\r\n"
                f"Authorization: Bearer {service.admin_token}\r\nContent-Type: text/csv\r\n\r\nquestion"
            ).encode()
        )
        client.last_answer().check_problem(408)


def test_share_08_a_body_that_hardly_moves_ends_too(quick: Watched) -> None:
    """A byte now and then is movement, but it does not hold a connection for ever."""
    with connected(quick.port) as client:
        client.send(post("/api/auth/login", length=1 << 20))
        client.drip(b" " * 100_000, every_seconds=0.02)
        client.last_answer().check_problem(408)


def test_share_08_a_client_that_hangs_up_within_its_body_is_499(quick: Watched) -> None:
    """It is nobody's mistake: neither 400 nor 500, and the request's line says so."""
    before = quick.metric('errors_total{code="malformed_body"}')
    with connected(quick.port) as client:
        client.send(
            post("/api/auth/register", "X-Request-ID: the-one-that-hangs-up-01", length=100, body=b"{")
        )
    line = quick.wait_for_line("http.request", request_id="the-one-that-hangs-up-01")
    assert (499, "/api/auth/register") == (line["http.status"], line["http.route"])
    assert before == quick.metric('errors_total{code="malformed_body"}')
    assert [] == quick.lines("http.unhandled_error")


def test_share_08_the_end_of_a_broken_body_is_an_answer(quick: Watched) -> None:
    """A chunk that is none ends the request at once, in the form of every error, and not at the deadline."""
    with connected(quick.port) as client:
        client.send(post("/api/auth/login", "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n"))
        wait_until_read(quick, client)
        client.send(b"sesame\r\n")
        answer = client.last_answer()
    answer.check_problem(400)
    assert ("malformed_body", "body") == (answer.problem["code"], answer.problem["errors"][0]["field"])
    assert "Traceback" not in quick.log.read_text()


def wait_until_read(watched: Watched, client: Client) -> None:
    """By a request that came later and has been answered; nothing has come back to the client yet."""
    with connected(watched.port) as other:
        other.send(get("/livez"))
        assert 200 == other.read_answer().status
    assert client.is_open()

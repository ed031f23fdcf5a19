"""What the HTTP parser refuses: answered like every other error, counted, seldom logged, never echoed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from server.connections.table import MALFORMED, RefusalWriter
from server.middleware.headers import StandardHeaders
from server.settings import Settings
from server.telemetry.metrics.index import Metrics
from tests.connections.conftest import Serve, Watched
from tests.connections.raw import connected, get, post
from tests.support.properties import examples
from tests.test_settings import GOOD

SESAME = "open-sesame-0123456789"
LONG = SESAME * 2000
# What is sent, and how it is answered.
REFUSED: dict[str, tuple[bytes, int]] = {
    "a version that is none": (f"GET /?{SESAME} HTTP/9.9\r\nHost: a\r\n\r\n".encode(), 400),
    "a request line that is none": (f"{SESAME} what\r\n\r\n".encode(), 400),
    "binary garbage": (b"\x00\xff\xfe" + SESAME.encode() + b"\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SESAME.encode() * 9, 400),
    "the preface of HTTP/2": (f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SESAME}".encode(), 400),
    "a method that is none": (f"G@T /{SESAME} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400),
    "no host": (f"GET /{SESAME} HTTP/1.1\r\n\r\n".encode(), 400),
    "a host without an end": (f"GET http://[::1{SESAME} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400),
    "a header without a colon": (get("/", SESAME), 400),
    "a header with a NUL": (get("/", f"X-Api-Key: {SESAME}\0"), 400),
    "a folded header": (get("/", f"X-Api-Key: a\r\n {SESAME}"), 400),
    "a cookie of 44 kB": (get("/", f"Cookie: session={LONG}"), 431),
    "a key of 44 kB": (get("/", f"X-Api-Key: {LONG}"), 431),
    "a cookie just above the limit": (get("/", f"Cookie: {SESAME}{'x' * (16 << 10)}"), 431),
    "a megabyte of a header": (get("/", f"Cookie: {SESAME * 50_000}"), 431),
    "an address of 44 kB": (get(f"/{LONG}"), 414),
    "a length that is none": (post("/", f"Content-Length: {SESAME}", "X: chunked"), 400),
    "two lengths": (post("/", "Content-Length: 3", body=SESAME.encode()), 400),
    "a length and chunks": (
        post("/", "Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
    ),
    "a coding that is not chunked": (post("/", f"Transfer-Encoding: {SESAME}", "X: chunked"), 400),
    "a chunk that is none": (post("/", "Transfer-Encoding: chunked", body=f"{SESAME}\r\n".encode()), 400),
    "an expectation": (get("/", f"Expect: {SESAME}"), 417),
    "an expectation at no path": (get("/nowhere", f"Expect: {SESAME}"), 417),
    "an expectation too many": (get("/", "Expect: 100-continue", f"Expect: {SESAME}"), 417),
}


# The parser in pure Python takes any version for one, waits for the line's end of a TLS hello, and begins to read a
# header that is longer than an address may be as one.
COMPILED_ONLY = {"a version that is none", "a TLS hello", "a megabyte of a header"}


@pytest.fixture(scope="module", params=["compiled", "pure"])
def watched(serve: Serve, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """The default settings, with either of aiohttp's parsers."""
    parser = {"AIOHTTP_NO_EXTENSIONS": "1"} if request.param == "pure" else {}
    with serve(**parser) as service:
        yield service


def refused_by(request: pytest.FixtureRequest) -> dict[str, tuple[bytes, int]]:
    """What the parser of this test refuses."""
    left_out = COMPILED_ONLY if "[pure" in request.node.name else set()
    return {name: case for name, case in REFUSED.items() if name not in left_out}


def test_share_10_what_the_parser_refuses_is_an_error_like_every_other(
    watched: Watched, request: pytest.FixtureRequest
) -> None:
    """With all headers, an id, and the connection closed; nothing that was sent is in it."""
    wrong = {}
    for name, (sent, status) in refused_by(request).items():
        with connected(watched.port) as client:
            client.send(sent)
            answer = client.last_answer()
        try:
            answer.check_problem(status)
            answer.check_new_id()
            assert SESAME not in f"{answer.headers}{answer.problem}"
        except AssertionError:
            wrong[name] = answer
    assert {} == wrong


def test_share_10_refusals_are_counted_and_seldom_logged(
    watched: Watched, request: pytest.FixtureRequest
) -> None:
    """One line a minute for this address, a warning without a traceback; nothing that was sent is in the log."""
    reasons = {400: "malformed", 414: "line_too_long", 417: "expectation", 431: "header_too_large"}
    before = {
        reason: watched.metric(f'http_refusals_total{{reason="{reason}"}}') for reason in reasons.values()
    }
    for sent, status in refused_by(request).values():
        with connected(watched.port) as client:
            client.send(sent)
            assert status == client.last_answer().status
            before[reasons[status]] += 1
    assert before == {
        reason: watched.metric(f'http_refusals_total{{reason="{reason}"}}') for reason in before
    }
    lines = watched.lines("http.refused")
    assert [("warning", "127.0.0.1")] == [(line["level"], line["client_ip"]) for line in lines]
    written = watched.log.read_text()
    assert SESAME not in written
    assert "Traceback" not in written
    assert '"level":"error"' not in written


def test_share_10_headers_within_the_limits_are_read(watched: Watched) -> None:
    """A cookie of nearly 16 KiB, and an address of nearly 32 KiB, which is said to have no end."""
    with connected(watched.port) as client:
        client.send(get("/livez", f"Cookie: {'x' * ((16 << 10) - 16)}"))
        assert 200 == client.read_answer().status
        client.send(get(f"/{'x' * ((32 << 10) - 100)}"))
        assert 404 == client.read_answer().status


def test_share_10_a_head_has_a_size_as_a_whole(watched: Watched) -> None:
    """A hundred headers that are each small enough are refused together, while they arrive."""
    with connected(watched.port) as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: mastery\r\n")
        header = f"X-Large: {'x' * 10_000}\r\n".encode()
        for _ in range(20):
            client.send(header)
        client.last_answer().check_problem(431)


def test_share_10_what_was_asked_before_is_answered_before(watched: Watched) -> None:
    """Good requests in front of garbage on one connection have their answers."""
    with connected(watched.port) as client:
        client.send(get("/livez"))
        assert 200 == client.read_answer().status
        client.send(SESAME.encode() + b"\r\n\r\n")
        client.last_answer().check_problem(400)


@settings(max_examples=examples(60))
@given(
    sent=st.binary(min_size=1, max_size=60) | st.text(alphabet="GET /HP1.\r\n:a", min_size=1).map(str.encode)
)
def test_share_10_no_bytes_end_a_connection_without_an_answer(shared_watched: Watched, sent: bytes) -> None:
    """Whatever is sent in the place of a header, the answer is one, and nobody's traceback is in the log."""
    with connected(shared_watched.port) as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + sent + b"\r\n\r\n")
        assert client.read_answer().status in {200, 400, 417}
    assert "Traceback" not in shared_watched.log.read_text()


@pytest.fixture(scope="module")
def shared_watched(serve: Serve) -> Iterator[Watched]:
    """The default settings."""
    with serve() as service:
        yield service


def test_share_10_addresses_are_remembered_up_to_a_number() -> None:
    """One line each, whatever they do meanwhile; an IPv6 network is one client; the memory is bounded."""
    writer = RefusalWriter(StandardHeaders(Settings.from_env(GOOD)), Metrics(), max_addresses=3)
    with structlog.testing.capture_logs() as events:
        for peer in (
            "192.0.2.1",
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "2001:db8::1",
            "2001:db8::2",
            None,
            "192.0.2.1",
        ):
            writer.answer(MALFORMED, peer)
    assert ["192.0.2.1", "2001:db8::1", None] == [event["client_ip"] for event in events]
    with structlog.testing.capture_logs() as events:
        for number in range(100):
            writer.answer(MALFORMED, f"198.51.100.{number}")
    assert 100 == len(events)
    assert 3 == len(writer._logged)


def test_a_line_says_how_many_went_before_it_without_one() -> None:
    """A minute after its line an address has another one, with the number of those between."""
    writer = RefusalWriter(StandardHeaders(Settings.from_env(GOOD)), Metrics())
    with structlog.testing.capture_logs() as events:
        for refusals in (3, 1, 2, 1):
            for _ in range(refusals):
                writer.answer(MALFORMED, "192.0.2.1")
            writer._logged = OrderedDict(
                (peer, (at - 60, count)) for peer, (at, count) in writer._logged.items()
            )
    assert [0, 2, 0, 1] == [event["not_logged_before"] for event in events]

"""Compressed bodies and bodies that wait to be asked for: what is refused is neither read nor inflated."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

import pytest

from tests.connections.conftest import Serve, Watched
from tests.connections.raw import Answer, connected, get, post

LOGIN = "/api/auth/login"
BODY = json.dumps({"email": "nobody@example.com", "password": "a password of nobody"}).encode()
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
DEFLATED = RAW.compress(BODY) + RAW.flush()


@pytest.fixture(scope="module")
def watched(serve: Serve) -> Iterator[Watched]:
    """The default settings."""
    with serve() as service:
        yield service


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """2 MB that inflate to 2 GB: the same block again and again. Its checksum is wrong, but comes after all of them."""
    compressor = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)

    def block() -> bytes:
        return compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)

    return block() + 2047 * block() + compressor.flush()


def send(watched: Watched, body: bytes, encoding: str) -> Answer:
    """The answer to a login with a body in some encoding."""
    with connected(watched.port) as client:
        client.send(post(LOGIN, f"Content-Encoding: {encoding}", body=body))
        return client.read_answer()


def test_share_08_a_refused_body_is_not_inflated(watched: Watched) -> None:
    """On a path that is not there, and without a token: a body that can't be inflated is no hindrance."""
    for path, status in (("/nowhere", 404), ("/api/progress/cards", 401), ("/livez", 405)):
        with connected(watched.port) as client:
            client.send(post(path, "Content-Encoding: gzip", body=b"this is not gzip at all"))
            assert status == client.read_answer().status
            client.send(get("/livez"))  # and the connection is as good as before
            assert 200 == client.read_answer().status
    assert "Traceback" not in watched.log.read_text()


def test_share_08_a_bomb_is_inflated_to_the_limit_and_no_further(watched: Watched, bomb: bytes) -> None:
    """2 MB that would become 2 GB are refused by their size; in chunks, by what they have become at 1 MiB."""
    assert 413 == send(watched, bomb, "gzip").status
    chunk = bomb[: 1 << 19]
    with connected(watched.port) as client:
        client.send(post(LOGIN, "Content-Encoding: gzip", "Transfer-Encoding: chunked"))
        client.send(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n0\r\n\r\n")
        assert 413 == client.read_answer().status
    for path, status in (("/nowhere", 404), ("/api/progress/cards", 401)):
        with connected(watched.port) as client:
            client.send(post(path, "Content-Encoding: gzip", body=bomb))
            assert status == client.read_answer().status


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("X-GZIP", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", DEFLATED),
        ("identity", BODY),
        ("", BODY),
    ],
    ids=["gzip", "x-gzip", "deflate", "deflate without a frame", "identity", "empty"],
)
def test_share_08_a_body_is_inflated_where_it_is_read(watched: Watched, encoding: str, body: bytes) -> None:
    """It says what it says without its encoding: here, the name and password of nobody."""
    assert 401 == send(watched, body, encoding).status


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "sesame", "gzip;q=1"])
def test_share_10_an_unknown_content_encoding_is_415(watched: Watched, encoding: str) -> None:
    """The answer says which there are, and not which there was."""
    answer = send(watched, BODY, encoding)
    assert (415, "unsupported_content_encoding") == (answer.status, answer.problem["code"])
    assert "gzip, deflate" == answer.headers["accept-encoding"]
    assert encoding not in str(answer.problem)


@pytest.mark.parametrize(
    "body",
    [gzip.compress(BODY)[:-9], gzip.compress(BODY) + b"x", gzip.compress(BODY) * 2, b"", BODY],
    ids=["cut", "with a tail", "twice", "nothing", "plain"],
)
def test_share_08_a_body_that_is_not_what_its_encoding_says_is_400(watched: Watched, body: bytes) -> None:
    """The field that is named is the body."""
    answer = send(watched, body, "gzip")
    assert (400, "body") == (answer.status, answer.problem["errors"][0]["field"])


def test_share_08_a_body_is_asked_for_when_it_is_read(watched: Watched) -> None:
    """Where the client waits to be asked: 100 on a route that reads, nothing but the answer where it is refused."""
    with connected(watched.port) as client:
        client.send(post(LOGIN, "Expect: 100-Continue", length=len(BODY)))
        assert 100 == client.read_answer().status
        client.send(BODY)
        assert 401 == client.read_answer().status
        client.send(get("/livez"))
        assert 200 == client.read_answer().status
    for path, status in (("/nowhere", 404), ("/api/progress/cards", 401)):
        with connected(watched.port) as client:
            client.send(post(path, "Expect: 100-continue", length=len(BODY)))
            answer = client.last_answer()
            assert (status, "close") == (answer.status, answer.headers["connection"])
    with connected(watched.port) as client:  # it does not wait, after all
        client.send(post(LOGIN, "Expect: 100-continue", body=BODY))
        assert 401 == client.read_answer().status

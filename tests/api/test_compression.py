"""Answers of 1 kB and more are compressed where the client takes that."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from aiohttp import ClientResponse

from server.api.compression import COMPRESSED_FROM_BYTES, CompressedBodies
from tests.api.conftest import Api, Course, run_statement


async def get_raw(api: Api, path: str, accepted: str | None, **headers: str) -> ClientResponse:
    """GET with this Accept-Encoding, the body left as it came."""
    sent = {"Authorization": f"Bearer {api.token_of('user')}", **headers}
    if accepted is not None:
        sent["Accept-Encoding"] = accepted
    skipped = () if accepted is not None else ("Accept-Encoding",)
    request = api.client.session.request(
        "GET", api.client.make_url(path), headers=sent, skip_auto_headers=skipped, auto_decompress=False
    )
    return await request


@pytest.fixture
def long_deck(api: Api, course: Course) -> str:
    """The path of a deck whose cards make a large answer."""
    run_statement(
        api.services.settings.database_url,
        "INSERT INTO flashcards (deck_id, question, answer, is_published)"
        " SELECT %s, 'question ' || n, repeat('answer ', 9) || n, true FROM generate_series(1, 500) AS n",
        str(course.decks["Law"]),
    )
    return f"/api/decks/{course.decks['Law']}/flashcards"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("*", "gzip"),
        ("x-gzip", "gzip"),
        ("identity;q=0.5, gzip ; q=0.7", "gzip"),
        (None, None),
        ("", None),
        ("br, deflate", None),
        ("gzip;q=0", None),
        ("*;q=0", None),
        ("gzip;q=0.2, identity;q=0.7", None),
        ("gzip;q=abc", None),
        ("gzip," + "x" * 300, None),
    ],
)
async def test_a_large_answer_comes_in_the_coding_that_the_client_prefers(
    api: Api, long_deck: str, accepted: str | None, coding: str | None
) -> None:
    """Accept-Encoding with its weights decides; the text and the tag are the same either way, and Vary says so."""
    plain = await api.get(long_deck, headers={"Accept-Encoding": "identity"})
    response = await get_raw(api, long_deck, accepted)
    body = await response.read()
    assert coding == response.headers.get("Content-Encoding")
    assert await plain.read() == (body if coding is None else gzip.decompress(body))
    assert str(len(body)) == response.headers["Content-Length"]
    assert plain.headers["ETag"] == response.headers["ETag"]
    assert "Authorization, Accept-Encoding" == plain.headers["Vary"] == response.headers["Vary"]


async def test_a_small_answer_stays_as_it_is(api: Api) -> None:
    """Below 1 kB there is nothing to gain."""
    response = await get_raw(api, "/api/stats", "gzip")
    assert "Content-Encoding" not in response.headers
    assert COMPRESSED_FROM_BYTES > int(response.headers["Content-Length"])


async def test_the_compressed_form_is_known_by_the_same_tag(api: Api, long_deck: str) -> None:
    """A client that has the compressed body gets 304 for its tag."""
    first = await get_raw(api, long_deck, "gzip")
    again = await get_raw(api, long_deck, "gzip", **{"If-None-Match": first.headers["ETag"]})
    assert (304, first.headers["Vary"]) == (again.status, again.headers["Vary"])


async def test_every_kind_of_answer_is_compressed(api: Api, course: Course) -> None:
    """Errors, writes, files and figures too: whatever is large enough says that it varies."""
    cards = [str(card) for card in course.cards.values()]
    ratings = [{"flashcardId": cards[0], "confidenceLevel": 9} for _ in range(20)]
    accepted = {"Accept-Encoding": "gzip"}
    wrong = await api.post("/api/progress/cards", json={"ratings": ratings}, headers=accepted)
    ratings = [{"flashcardId": cards[0], "confidenceLevel": 4} for _ in range(20)]
    written = await api.post("/api/progress/cards", json={"ratings": ratings}, headers=accepted)
    document = await api.get("/api/openapi.json", headers=accepted)
    figures = await api.get("/api/metrics", by=None, headers=accepted)
    assert [400, 200, 200, 200] == [one.status for one in (wrong, written, document, figures)]
    for response in (wrong, written, document, figures):
        assert "gzip" == response.headers["Content-Encoding"], response.url
        assert "Accept-Encoding" in response.headers["Vary"], response.url


async def test_the_same_bytes_are_compressed_once() -> None:
    """What has a tag is kept, up to a number of bytes; what has none is not."""
    bodies = CompressedBodies(most_bytes=100)
    once = await bodies.compress(b"a" * 5000, "a")
    assert once is await bodies.compress(b"a" * 5000, "a")
    assert gzip.decompress(once) == b"a" * 5000
    assert await bodies.compress(b"a" * 5000, None) is not await bodies.compress(b"a" * 5000, None)
    for tag in "bcdefgh":
        await bodies.compress(tag.encode() * 5000, tag)
    assert once is not await bodies.compress(b"a" * 5000, "a"), "the oldest is forgotten"


async def test_a_large_body_does_not_hold_up_the_loop() -> None:
    """It is compressed in a thread: the loop turns meanwhile."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await CompressedBodies().compress(b"abc" * 100_000, None)
    assert turned.is_set()


async def test_head_has_the_length_of_what_get_would_send(api: Api, long_deck: str) -> None:
    """In either coding: a client may ask how much there is before it reads it."""
    for coding in ("gzip", "identity"):
        accepted = {"Accept-Encoding": coding, "Authorization": f"Bearer {api.token_of('user')}"}
        head = await api.client.session.head(api.client.make_url(long_deck), headers=accepted)
        get = await get_raw(api, long_deck, coding)
        assert get.headers["Content-Length"] == head.headers["Content-Length"]
        assert get.headers.get("Content-Encoding") == head.headers.get("Content-Encoding")

"""The keys of an external issuer, however it answers: in pieces, slowly, wrongly, or with keys that are of no use."""

from __future__ import annotations

import asyncio
import gzip
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from time import monotonic
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from server.domain.identity import external as key_sets
from server.domain.identity.external import ExternalTokens, KeySet
from server.errors import MasteryError
from tests.api.conftest import Api
from tests.api.issuer import AUDIENCE, Issuer, Publish, me, new_key, public_jwk, sign
from tests.support.waiting import wait_until

BOM = b"\xef\xbb\xbf"
TOO_MUCH = b" " * (2 << 20)
SHARED = "a secret that is long enough for HS256, and published"


def in_pieces(*, size: int, compressed: bool = False, **headers: str) -> Publish:
    """Answer in packets of so many bytes, each a while after the one before."""

    async def publish(request: web.Request, document: bytes) -> web.StreamResponse:
        body = gzip.compress(document) if compressed else document
        encoding = {"Content-Encoding": "gzip"} if compressed else {}
        return await send(
            request, [body[at : at + size] for at in range(0, len(body), size)], headers | encoding
        )

    return publish


async def send(
    request: web.Request, pieces: Iterable[bytes], headers: dict[str, str], *, pause_seconds: float = 0.01
) -> web.StreamResponse:
    """Answer piece by piece."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(pause_seconds)  # the network's pace: a packet of its own
    return response


def always(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Publish:
    """Answer the same to everybody; in the body, DOCUMENT stands for the issuer's own."""

    async def publish(_request: web.Request, document: bytes) -> web.StreamResponse:
        return web.Response(body=body.replace(b"DOCUMENT", document), status=status, headers=headers)

    return publish


async def drip(request: web.Request, document: bytes) -> web.StreamResponse:
    """Answer one byte after the other, and then spaces for ever."""
    pieces = [document[at : at + 1] for at in range(len(document))]
    return await send(request, [*pieces, *([b" "] * 10_000)], {}, pause_seconds=0.005)


async def hang_up(request: web.Request, document: bytes) -> web.StreamResponse:
    """Answer with a half, and close the connection."""
    response = web.StreamResponse(headers={"Content-Length": str(len(document))})
    await response.prepare(request)
    await response.write(document[: len(document) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


GOOD_ANSWERS: dict[str, Publish] = {
    "two packets": in_pieces(size=300),
    "many packets": in_pieces(size=50),
    "gzip in packets": in_pieces(size=50, compressed=True),
    "another content type": always(b"DOCUMENT", headers={"Content-Type": "text/plain; charset=utf-16"}),
    "a byte order mark": always(BOM + b"DOCUMENT"),
}
BAD_ANSWERS: dict[str, Publish] = {
    "500": always(b"DOCUMENT", 500),
    "404": always(b"DOCUMENT", 404),
    "a redirection": always(b"DOCUMENT", 302, {"Location": "/elsewhere"}),
    "no JSON": always(b"<html>"),
    "half of it": always(b'{"keys": [{"kty": "RSA"'),
    "no UTF-8": always(b'{"keys": "\xff"}'),
    "a list": always(b"[DOCUMENT]"),
    "no keys": always(b"{}"),
    "an empty list": always(b'{"keys": []}'),
    "keys that are none": always(b'{"keys": {"first": 1}}'),
    "very deep": always(b"[" * 100_000),
    "too large": always(b"DOCUMENT" + TOO_MUCH),
    "too large, compressed": always(gzip.compress(TOO_MUCH), headers={"Content-Encoding": "gzip"}),
    "not what it says": always(b"DOCUMENT", headers={"Content-Encoding": "gzip"}),
    "a half": hang_up,
    "slowly": drip,
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are old at once, and are asked for again at once."""
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.0)
    monkeypatch.setattr(key_sets, "_FRESH_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
async def test_share_12_keys_are_read_however_they_arrive(external_api: Api, issuer: Issuer) -> None:
    """A document is whole when it ends, not when its first packet is there."""
    wrong: dict[str, int] = {}
    for way, publish in GOOD_ANSWERS.items():
        issuer.publish_by = publish
        issuer.rotate(way)
        status, _ = await me(external_api, issuer.token(way))
        if status != 200:
            wrong[way] = status
    assert {} == wrong


async def test_share_12_the_first_keys_may_come_in_two_packets(external_api: Api, issuer: Issuer) -> None:
    """With the default settings, from the first token on."""
    issuer.publish_by = in_pieces(size=300)
    assert 200 == (await me(external_api, issuer.token()))[0]


async def verdict(tokens: ExternalTokens, token: str) -> int:
    """The status that a token is answered with."""
    try:
        await tokens.verify(token)
    except MasteryError as error:
        return error.status
    return 200


@pytest.mark.usefixtures("impatient")
async def test_share_12_keys_outlive_an_issuer_that_fails(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any keys that is a 503; keys that are known go on serving, and a stranger's key is still refused."""
    wrong: dict[str, list[int]] = {}
    for way, publish in BAD_ANSWERS.items():
        tokens = ExternalTokens(KeySet(f"{issuer.name}/jwks.json"), issuer=issuer.name, audience=AUDIENCE)
        bad: dict[str, Any] = {"publish": publish, "timeout_seconds": 0.2 if way == "slowly" else 60}
        found = []
        for answers, subject in ((bad, "a"), ({}, "a"), (bad, "b"), (bad, "c")):
            issuer.publish_by = answers.get("publish")
            timeout = aiohttp.ClientTimeout(total=answers.get("timeout_seconds", 60))
            monkeypatch.setattr(key_sets, "_TIMEOUT", timeout)
            found.append(await verdict(tokens, issuer.token(subject)))
        issuer.rotate(f"after {way}")
        found.append(await verdict(tokens, issuer.token()))
        if found != [503, 200, 200, 200, 401]:
            wrong[way] = found
        await tokens.close()
    assert {} == wrong


async def test_share_12_many_requests_wait_for_one_fetch(external_api: Api, issuer: Issuer) -> None:
    """However many tokens need the keys while they are on their way, they are asked for once."""
    enough = asyncio.Event()
    issuer.publish_by = when(enough, already=100)
    asked = [asyncio.create_task(me(external_api, issuer.token(f"user_{number}"))) for number in range(10)]
    await wait_until(lambda: issuer.fetches == 1, "the keys are asked for")
    enough.set()
    assert [200] * 10 == [status for status, _ in await asyncio.gather(*asked)]
    assert 1 == issuer.fetches


def when(event: asyncio.Event, *, already: int) -> Publish:
    """Answer in two packets: so many bytes, and the others once something has happened."""

    async def publish(request: web.Request, document: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(document[:already])
        await event.wait()
        await response.write(document[already:])
        return response

    return publish


async def test_share_12_a_known_key_waits_for_no_issuer(
    external_api: Api, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that get old are fetched while they go on serving; the fetch is still under way when the answer is there."""
    assert 200 == (await me(external_api, issuer.token()))[0]
    later = monotonic() + key_sets._FRESH_SECONDS + 1
    monkeypatch.setattr(key_sets, "monotonic", lambda: later)
    monkeypatch.setattr(key_sets, "_TIMEOUT", aiohttp.ClientTimeout(total=600))
    enough = asyncio.Event()
    issuer.publish_by = when(enough, already=0)
    async with asyncio.timeout(30):
        assert 200 == (await me(external_api, issuer.token("user_2")))[0]
    await wait_until(lambda: issuer.fetches == 2, "the keys are fetched anew")
    assert not enough.is_set()
    enough.set()


async def test_nobody_waits_for_an_issuer_that_failed(
    external_api: Api, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are very old are waited for once; when that failed, they serve while the issuer is asked again."""
    now = monotonic()
    monkeypatch.setattr(key_sets, "monotonic", lambda: now)
    monkeypatch.setattr(key_sets, "_TIMEOUT", aiohttp.ClientTimeout(total=600))
    assert 200 == (await me(external_api, issuer.token()))[0]
    now += 3 * key_sets._FRESH_SECONDS
    issuer.publish_by = always(b"", 500)
    assert 200 == (await me(external_api, issuer.token("user_2")))[0]
    assert 2 == issuer.fetches
    now += 2 * key_sets._COOLDOWN_SECONDS
    enough = asyncio.Event()
    issuer.publish_by = when(enough, already=0)
    async with asyncio.timeout(30):
        assert 200 == (await me(external_api, issuer.token("user_3")))[0]
    await wait_until(lambda: issuer.fetches == 3, "the keys are fetched anew")
    assert not enough.is_set()
    enough.set()


@pytest.mark.usefixtures("impatient")
async def test_share_12_keys_without_ids(external_api: Api, issuer: Issuer) -> None:
    """An issuer that does not name its keys may have several, of both kinds, and exchange them."""
    for _ in range(2):
        issuer.keys = {"-1": new_key(), "-2": ec.generate_private_key(ec.SECP256R1())}
        for key, algorithm in zip(issuer.keys.values(), ("RS256", "ES256"), strict=True):
            for named in ({}, {"kid": "whatever"}):
                token = sign(issuer.claims(), key, {"alg": algorithm, "typ": "JWT", **named})
                assert 200 == (await me(external_api, token))[0], (algorithm, named)
    assert 401 == (await me(external_api, sign(issuer.claims(), new_key(), {"alg": "RS256"})))[0]


async def test_share_12_a_key_that_is_exchanged_under_its_id(
    external_api: Api, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that the known key did not sign makes the service look whether there is another."""
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.0)
    assert 200 == (await me(external_api, issuer.token()))[0]
    issuer.rotate("first")
    assert 200 == (await me(external_api, issuer.token("user_2")))[0]


def odd_keys() -> dict[str, Any]:
    """Entries of a JWKS document that are no use, by what is wrong with them."""
    good = public_jwk(new_key())
    values: list[Any] = [None, True, 1, 1e300, "", "x", "\0", "\u00e9", [], {}, ["x"], "A" * 20_000]
    kinds: list[Any] = [True, 1, [], {}, ["x"], [["sig"]]]
    odd: dict[str, Any] = {f"entry {value!r:.20}": value for value in values if not isinstance(value, dict)}
    for name in ("kty", "n", "e"):
        odd |= {f"{name} {value!r:.20}": {**good, "kid": name, name: value} for value in values}
    for name in ("kid", "use", "alg", "key_ops", "crv"):
        odd |= {f"{name} {kind!r:.20}": {**good, name: kind} for kind in kinds}
    point = public_jwk(ec.generate_private_key(ec.SECP256R1()))
    for name in ("x", "y", "crv"):
        odd |= {f"{name} {value!r:.20}": {**point, "kid": name, name: value} for value in values}
    return odd | {
        "another curve": public_jwk(ec.generate_private_key(ec.SECP384R1())),
        "too short": public_jwk(new_key(1024)),
        "Ed25519": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43},
    }


@pytest.mark.usefixtures("impatient")
async def test_share_12_one_bad_key_does_not_hide_the_good_ones(external_api: Api, issuer: Issuer) -> None:
    """Whatever stands beside it, a good key serves; what is skipped is logged with its reason, and only once."""
    wrong: dict[str, int] = {}
    for name, entry in odd_keys().items():
        issuer.extra = [entry]
        issuer.rotate(f"beside {name}", issuer.keys[next(iter(issuer.keys))])
        status, _ = await me(external_api, issuer.token())
        if status != 200:
            wrong[name] = status
    assert {} == wrong

    issuer.extra = [{"kty": "RSA", "kid": "bad", "n": 5, "e": "AQAB"}]
    with structlog.testing.capture_logs() as events:
        for number in range(3):
            issuer.rotate(f"new {number}")
            assert 200 == (await me(external_api, issuer.token()))[0]
    skipped = [event["error"] for event in events if event["event"] == "jwks.key_skipped"]
    assert ["bad: malformed"] == skipped


@pytest.mark.usefixtures("impatient")
async def test_share_12_keys_that_are_not_for_signatures_sign_nothing(
    external_api: Api, issuer: Issuer
) -> None:
    """A shared secret, a key for encryption and one for another algorithm are published, and open nothing."""
    private = new_key()
    public = public_jwk(private)
    secret = urlsafe_b64encode(SHARED.encode()).rstrip(b"=").decode()
    other: dict[str, tuple[dict[str, Any], Any, str]] = {
        "shared": ({"kty": "oct", "k": secret}, SHARED, "HS256"),
        "shared for RS256": ({"kty": "oct", "k": secret, "alg": "RS256"}, SHARED, "RS256"),
        "shared, called RSA": ({**public, "k": secret, "alg": "HS256"}, SHARED, "HS256"),
        "published text": (public, json.dumps(public), "HS256"),
        "encryption": ({**public, "use": "enc"}, private, "RS256"),
        "key wrapping": ({**public, "alg": "RSA-OAEP"}, private, "RS256"),
        "signing only": ({**public, "key_ops": ["sign"]}, private, "RS256"),
        "no algorithm": (public, private, "none"),
    }
    opened: dict[str, int] = {}
    for name, (entry, key, algorithm) in other.items():
        issuer.extra = [{**entry, "kid": name}]
        token = sign(issuer.claims(), key, {"alg": algorithm, "typ": "JWT", "kid": name})
        status, _ = await me(external_api, token)
        if status != 401:
            opened[name] = status
        assert 200 == (await me(external_api, issuer.token()))[0]
    assert {} == opened

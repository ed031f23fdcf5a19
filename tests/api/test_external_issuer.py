"""Tokens of an external OpenID Connect issuer, against a real one that this test runs."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import time
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.domain.identity import callers
from server.domain.identity import external as key_sets
from server.settings import Settings
from tests.api.conftest import Api, StartApi
from tests.api.issuer import AUDIENCE, Issuer, me
from tests.conftest import run_sql
from tests.support.otlp_receiver import otlp_receiver


async def test_a_person_has_an_account_from_the_first_request_on(external_api: Api, issuer: Issuer) -> None:
    """The account is made once, also by requests that come together, and found again by issuer and subject."""
    answers = await asyncio.gather(
        *(me(external_api, issuer.token(iat=int(time.time()) - n)) for n in range(5))
    )

    assert {200} == {status for status, _ in answers}
    assert 1 == len({user["id"] for _, user in answers})
    assert ("user_1@example.org", "Grace", "user") == tuple(
        answers[0][1][field] for field in ("email", "name", "role")
    )
    assert 1 == issuer.fetches


async def test_the_issuer_is_asked_as_part_of_the_callers_trace(
    external_api: Api, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trace of the request that needs the keys goes on to the issuer; without one nothing is made up."""
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.0)
    trace = {"traceparent": f"00-{'4bf92f35' * 4}-00f067aa0ba902b7-01", "tracestate": "vendor=1,other=2"}
    traced = {"Authorization": f"Bearer {issuer.token()}", **trace}
    assert 200 == (await external_api.get("/api/auth/me", by=None, headers=traced)).status
    issuer.rotate("second")
    assert 200 == (await me(external_api, issuer.token("later")))[0]

    with_trace, without = issuer.asked_with
    assert trace == {name: with_trace.get(name) for name in trace}
    assert not {"traceparent", "tracestate"} & {name.lower() for name in without}


async def test_the_issuer_is_asked_by_the_requests_own_span(
    issuer: Issuer, settings: Settings, start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where traces are exported, what the service asks for hangs below its span, and is sampled as it is."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with otlp_receiver() as collector:
        exporting = dataclasses.replace(
            settings,
            auth_jwks_url=f"{issuer.name}/jwks.json",
            auth_issuer=issuer.name,
            auth_audience=AUDIENCE,
            otlp_endpoint=collector.url,
        )
        api = await start_api(exporting)
        traced = {
            "Authorization": f"Bearer {issuer.token()}",
            "traceparent": f"00-{'4bf92f35' * 4}-00f067aa0ba902b7-01",
            "tracestate": "vendor=1",
        }
        assert 200 == (await api.get("/api/auth/me", by=None, headers=traced)).status
        (request,) = await collector.wait_for(1)
        (asked,) = issuer.asked_with
        assert f"00-{'4bf92f35' * 4}-{request.span_id}-01" == asked["traceparent"]
        assert "vendor=1" == asked["tracestate"]
        assert "00f067aa0ba902b7" == request.parent_id
        await api.client.close()


async def test_an_address_that_has_an_account_is_not_taken_over(external_api: Api, issuer: Issuer) -> None:
    """An issuer that names the address of a local account gets an account of its own."""
    status, user = await me(external_api, issuer.token("mallory", email="admin@example.com"))

    assert 200 == status
    assert user["id"] != str(external_api.people["admin"].user_id)
    assert user["email"].endswith("@external.invalid")
    assert "user" == user["role"]


async def test_share_15_other_spellings_of_an_address_are_taken_too(
    external_api: Api, issuer: Issuer, settings: Settings
) -> None:
    """What NFKC makes equal is one address, also where it was stored before addresses were normalised."""
    run_sql(
        settings.database_url, "UPDATE users SET email = '\uff4fther@example.com' WHERE email LIKE 'other%'"
    )
    for person, email in (
        ("one", "\uff21dmin@example.com"), ("two", "other@example.com"), ("three", "\uff4fther@example.com"),
    ):  # fmt: skip
        status, user = await me(external_api, issuer.token(person, email=email))
        assert (200, True) == (status, user["email"].endswith("@external.invalid"))
    _, user = await me(external_api, issuer.token("four", email=" Gr\uff41ce@Example.com "))
    assert "grace@example.com" == user["email"]


async def test_both_issuers_serve_at_the_same_time(external_api: Api, issuer: Issuer) -> None:
    """The service's own tokens go on working."""
    assert 200 == (await me(external_api, issuer.token()))[0]
    assert 200 == (await external_api.get("/api/auth/me")).status


async def test_a_rotated_key_is_fetched_when_it_is_first_seen(
    external_api: Api, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token signed with a new key works at once; one signed with the key that went is refused."""
    old = issuer.token("before")
    assert 200 == (await me(external_api, old))[0]
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.0)
    issuer.rotate("second", ec.generate_private_key(ec.SECP256R1()))

    assert 200 == (await me(external_api, issuer.token("after", algorithm="ES256")))[0]
    issuer_with_old_key = old.rsplit(".", 1)[0] + "." + "A" * 342
    assert 401 == (await me(external_api, issuer_with_old_key))[0]


async def test_unknown_key_ids_do_not_make_the_service_ask_each_time(
    external_api: Api, issuer: Issuer
) -> None:
    """A stranger who invents key ids costs the issuer one fetch in the cool-down."""
    assert 200 == (await me(external_api, issuer.token()))[0]
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for number in range(10):
        issuer.keys = {f"invented-{number}": stranger}
        assert 401 == (await me(external_api, issuer.token()))[0]

    assert 1 == issuer.fetches


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "somebody-else"},
        {"aud": None},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"iss": "https://evil.example.com"},
        {"nbf": 4_000_000_000},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_this_service_is_refused(
    external_api: Api, issuer: Issuer, claims: dict[str, Any]
) -> None:
    """Audience, lifetime, subject and issuer all count."""
    assert 401 == (await me(external_api, issuer.token(**claims)))[0]


async def test_the_public_key_does_not_serve_as_a_shared_secret(external_api: Api, issuer: Issuer) -> None:
    """A token that is signed HS256 with the published key (the classic confusion) is refused."""
    _, payload, _ = issuer.token().split(".")
    forged_head = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"first"}').rstrip(b"=").decode()
    public = issuer.keys["first"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = hmac.digest(public, f"{forged_head}.{payload}".encode(), hashlib.sha256)
    forged = f"{forged_head}.{payload}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    assert 401 == (await me(external_api, forged))[0]


async def test_an_issuer_that_is_away_is_a_503_until_it_is_back(
    external_api: Api, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any keys a token can't be judged: that is not the client's fault."""
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.0)
    token = issuer.token()
    assert issuer.server is not None
    port = issuer.server.port
    await issuer.server.close()
    assert 503 == (await me(external_api, token))[0]

    revived = web.Application()
    revived.router.add_get("/jwks.json", issuer.publish)
    issuer.server = TestServer(revived, port=port)
    await issuer.server.start_server()
    assert 200 == (await me(external_api, token))[0]


async def test_a_deactivated_account_loses_access_when_it_is_looked_at_again(
    api: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token stays valid, its bearer does not; a new role holds from the same moment."""
    assert 200 == (await api.get("/api/stats")).status
    run_sql(database_url, "UPDATE users SET deactivated_at = now() WHERE email = 'user@example.com'")
    run_sql(database_url, "UPDATE users SET role = 'admin' WHERE email = 'other@example.com'")
    later = time.monotonic() + callers.RECHECK_SECONDS + 1
    monkeypatch.setattr(callers, "monotonic", lambda: later)

    assert 401 == (await api.get("/api/stats")).status
    assert 200 == (await api.get("/api/admin/analytics/users", by="other")).status


async def test_an_issuer_without_audiences(issuer: Issuer, settings: Settings, start_api: StartApi) -> None:
    """Where no audience is set, tokens without one are accepted, and those for others as well."""
    api = await start_api(
        dataclasses.replace(settings, auth_jwks_url=f"{issuer.name}/jwks.json", auth_issuer=issuer.name)
    )
    assert 200 == (await me(api, issuer.token(aud=None)))[0]
    assert 200 == (await me(api, issuer.token(aud="anybody")))[0]

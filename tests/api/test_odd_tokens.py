"""Tokens of both issuers with claims and header fields of every kind: 401 at worst, never for what only decorates."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from server.settings import Settings
from tests.api.conftest import SECRET_KEY, Api, StartApi, run_statement
from tests.api.issuer import Issuer, me, sign
from tests.support.properties import examples

# Every type of JSON, and what has been trouble somewhere; Infinity and NaN are what JSON of other languages may hold.
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, 10**18, 2**64, -(10**30), 1e300, float("inf"), float("-inf"), float("nan"),
    "", " ", "text", "true", "admin", "1700000000", "9999999999", "\0", "a\0b", "\ud800", "\udfff\ud800", "\u202e",
    "x" * 255, "x" * 256, "é" * 300, "x" * 5000, "user@example.com", "x" * 250 + "@example.com", "İ@example.com",
    [], [1], ["text"], ["mastery", None], [[]], {}, {"a": 1}, {"exp": "x"},
]  # fmt: skip
DECIDES = ("iss", "sub", "aud", "exp", "nbf", "iat")
DECORATES = ("email", "email_verified", "name", "azp", "jti", "role", "plan", "deactivated", "scope")
HEADER = ("alg", "typ", "kid", "crit", "b64", "cty", "jku", "jwk", "x5u", "x5c", "zip", "enc")


def own_claims(api: Api, **claims: Any) -> dict[str, Any]:
    """The claims of a token of the service's own."""
    now = int(time.time())
    usual = {
        "iss": "mastery", "sub": str(api.people["user"].user_id), "role": "user", "iat": now, "exp": now + 600,
    }  # fmt: skip
    return usual | claims


def own_token(api: Api, claims: dict[str, Any], header: dict[str, Any]) -> str:
    """A token that the service's key has signed."""
    return sign(own_claims(api, **claims), SECRET_KEY, {"alg": "HS256", "typ": "JWT"} | header)


async def status_of(api: Api, token: str) -> int:
    """What GET /api/auth/me answers to a token."""
    return (await me(api, token))[0]


def in_milliseconds() -> int:
    """A time that JavaScript gives, and JWT does not take."""
    return int((time.time() + 600) * 1000)


@pytest.mark.parametrize("by", ["ourselves", "the issuer"])
async def test_share_13_every_type_at_every_claim(external_api: Api, issuer: Issuer, by: str) -> None:
    """No claim makes a 5xx or a 400; what only decorates keeps nobody out."""

    def token(number: int, **claims: Any) -> str:
        if by == "ourselves":
            return own_token(external_api, claims, {})
        return issuer.sign(issuer.claims() | {"sub": f"user_{number}"} | claims)

    wrong: dict[tuple[str, str], int] = {}
    number = 0
    for claim in (*DECIDES, *DECORATES):
        for value in (*VALUES, in_milliseconds()):
            number += 1
            status = await status_of(external_api, token(number, **{claim: value}))
            # Ours would not have issued such a role or plan.
            decides = claim in DECIDES or (by == "ourselves" and claim in {"role", "plan"})
            if status != 200 and not (decides and status == 401):
                wrong[claim, repr(value)[:40]] = status
    assert {} == wrong


@pytest.mark.parametrize("by", ["ourselves", "the issuer"])
async def test_every_type_at_every_header_field(external_api: Api, issuer: Issuer, by: str) -> None:
    """A header is read before anything is verified: whatever stands in it is a 401 at worst."""
    wrong: dict[tuple[str, str], int] = {}
    for field in HEADER:
        for value in VALUES:
            token = (
                own_token(external_api, {}, {field: value})
                if by == "ourselves"
                else issuer.sign(issuer.claims(), **{field: value})
            )
            status = await status_of(external_api, token)
            if status not in {200, 401}:
                wrong[field, repr(value)[:40]] = status
    assert {} == wrong


SHORT = [value for value in VALUES if len(repr(value)) < 50]  # a header of the request has to hold all of it
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(SHORT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@example(claims={"exp": "9999999999", "name": "\0"}, header={}, payload=None)
@example(claims={"exp": 10**18, "email": []}, header={"jku": 1}, payload=[])
@given(
    claims=st.dictionaries(st.sampled_from([*DECIDES, *DECORATES]), JSON, max_size=4),
    header=st.dictionaries(st.sampled_from(HEADER[1:]), JSON, max_size=2),
    payload=st.none() | JSON,
)
@hypothesis_settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_share_13_any_claims_together(
    external_api: Api, issuer: Issuer, claims: dict[str, Any], header: dict[str, Any], payload: Any
) -> None:
    """Several odd claims and header fields at once, and payloads that are no object."""
    tokens = [
        own_token(external_api, claims, header),
        issuer.sign(issuer.claims() | claims, **header),
        sign(payload, SECRET_KEY, {"alg": "HS256"}),
    ]
    assert {200, 401} >= {await status_of(external_api, token) for token in tokens}


async def test_share_13_clocks_may_differ_by_half_a_minute(external_api: Api, issuer: Issuer) -> None:
    """A token that expired, or was issued, a few seconds off is taken; one that is a minute off is not."""

    def token(by: str, claim: str, seconds_from_now: float) -> str:
        times = {claim: time.time() + seconds_from_now}
        return (
            own_token(external_api, times, {}) if by == "ourselves" else issuer.sign(issuer.claims() | times)
        )

    expected = {
        ("exp", -10): 200, ("exp", -60): 401, ("exp", 60): 200, ("exp", 100 * 365 * 24 * 3600): 200,
        ("iat", 10): 200, ("iat", 3600): 401, ("nbf", 10): 200, ("nbf", 3600): 401,
    }  # fmt: skip
    for by in ("ourselves", "the issuer"):
        assert expected == {times: await status_of(external_api, token(by, *times)) for times in expected}, by


async def test_share_13_what_decorates_is_cleaned_or_left_out(external_api: Api, issuer: Issuer) -> None:
    """A name is cut to what can be stored, an address that can't be is replaced; the account is there all the same."""
    names: list[tuple[Any, str | None]] = [
        ("Grace", "Grace"), ("  Grace\tHopper\n ", "Grace Hopper"), ("x" * 256, "x" * 255),
        ("x" * 254 + "  y", "x" * 254),
        ("a\0b", "a b"), ("a\ud800b", "a b"), ("\ud83d\ude00", "\U0001f600"), ("\0", None),
        (" ", None), ("", None), (7, None),
        (["x"], None), ({"given": "x"}, None), (None, None),
    ]  # fmt: skip
    found = []
    for number, (name, _) in enumerate(names):
        status, user = await me(external_api, issuer.sign(issuer.claims(f"name_{number}") | {"name": name}))
        assert 200 == status, name
        found.append((name, user["name"]))
    assert names == found

    kept: list[dict[str, Any]] = [
        {"email": "Kept@Example.org"}, {"email": " kept2@example.org ", "email_verified": True},
        {"email": "kept3@example.org", "email_verified": "true"},
    ]  # fmt: skip
    verified: list[Any] = [False, "false", None, 0, 1, "yes", [], {}, ["true"]]
    unusable: list[Any] = [
        None, 7, "", "nobody", "@", "a@", "@b", "a b@example.org", "a\0@example.org", "\ud800@example.org",
        "x" * 243 + "@example.org", ["a@example.org"], {}, "a@b@example.org",
    ]  # fmt: skip
    replaced = [{"email": "lost@example.org", "email_verified": value} for value in verified]
    replaced += [{"email": value} for value in unusable]
    for number, claims in enumerate(kept + replaced):
        status, user = await me(external_api, issuer.sign(issuer.claims(f"mail_{number}") | claims))
        assert 200 == status, claims
        is_kept = user["email"].startswith("kept") and user["email"].endswith("@example.org")
        assert (claims in kept) == is_kept, (claims, user["email"])
        assert is_kept or user["email"].endswith("@external.invalid")


async def test_share_13_a_subject_is_as_it_is_or_not_at_all(external_api: Api, issuer: Issuer) -> None:
    """Two subjects are two people: none is cut or cleaned, so what can't be stored is refused."""
    subjects = ["x" * 255, "é" * 255, "auth0|1", "https://issuer.example.com/users/1", "a b", " a b"]
    people = [await me(external_api, issuer.token(subject)) for subject in subjects]
    assert {200} == {status for status, _ in people}
    assert len(subjects) == len({user["id"] for _, user in people})
    for subject in ("", "x" * 256, "a\0b", "\ud800", "a\nb"):
        assert 401 == await status_of(external_api, issuer.token(subject)), subject


async def test_a_role_in_a_token_gives_no_rights(external_api: Api, issuer: Issuer) -> None:
    """Whatever a token says of its bearer, the rights are those in the database."""
    claims = {"role": "admin", "roles": ["admin"], "plan": "gold", "is_admin": True}
    tokens = [
        issuer.sign(issuer.claims() | claims),
        own_token(external_api, {"role": "admin", "plan": "gold"}, {}),
    ]
    for token in tokens:
        status, user = await me(external_api, token)
        assert (200, "user") == (status, user["role"])
        headers = {"Authorization": f"Bearer {token}"}
        assert 403 == (await external_api.get("/api/admin/classes", by=None, headers=headers)).status


async def test_share_13_only_authorized_parties_come_in(
    external_settings: Settings, issuer: Issuer, start_api: StartApi
) -> None:
    """Where parties are set, `azp` has to be one of them; our own tokens name none."""
    parties = frozenset({"https://app.example.com", "mobile"})
    api = await start_api(replace(external_settings, auth_authorized_parties=parties))
    for party in parties:
        assert 200 == await status_of(api, issuer.token(azp=party))
    others: list[Any] = [
        None,
        "",
        "https://evil.example.com",
        "https://app.example.com/",
        "MOBILE",
        ["mobile"],
        1,
        {},
    ]
    for other in others:
        assert 401 == await status_of(api, issuer.token(azp=other)), other
    assert 200 == (await api.get("/api/auth/me")).status


@pytest.mark.parametrize("audience", ["mastery-tests", ["other", "mastery-tests"]], ids=str)
async def test_the_audience_may_be_one_of_several(external_api: Api, issuer: Issuer, audience: Any) -> None:
    """`aud` is a text or a list of texts."""
    assert 200 == await status_of(external_api, issuer.token(aud=audience))


async def test_a_huge_token_is_refused(external_api: Api, issuer: Issuer) -> None:
    """A header that is larger than any token is a 4xx, and the service goes on."""
    for token in (issuer.token(padding="x" * 75_000), own_token(external_api, {"padding": "x" * 75_000}, {})):
        headers = {"Authorization": f"Bearer {token}"}
        response = await external_api.get("/api/auth/me", by=None, headers=headers, documented=False)
        assert 400 <= response.status < 500
    assert 200 == (await external_api.get("/api/auth/me")).status


async def test_an_account_that_was_there_before_stays_as_it_is(
    external_api: Api, issuer: Issuer, database_url: str
) -> None:
    """Claims decorate at first sight only: a later token with an unusable name finds the same account."""
    _, first = await me(external_api, issuer.token())
    status, user = await me(external_api, issuer.sign(issuer.claims() | {"name": "\0", "email": 1}))
    assert (200, first) == (status, user)
    ((count,),) = run_statement(
        database_url, "SELECT count(*) FROM users WHERE external_issuer = %s", issuer.name
    )
    assert 1 == count

"""/api/auth over HTTP: shapes and statuses; the rules are tested in tests/domain/identity/test_accounts.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import jwt

from server.settings import Settings
from tests.api.conftest import SECRET_KEY, Api, StartApi

ADA = {"email": "Ada@Example.com", "password": "correct horse battery", "name": " Ada Lovelace "}


async def test_registering_signs_in(api: Api) -> None:
    """201 with the user, a token that works and names its bearer, and a refresh token; nobody may store it."""
    response = await api.post("/api/auth/register", by=None, json=ADA)
    assert (201, "no-store") == (response.status, response.headers["Cache-Control"])
    body = await response.json()
    assert body.keys() == {"user", "accessToken", "tokenType", "expiresIn", "refreshToken"}
    assert ("Bearer", 3600) == (body["tokenType"], body["expiresIn"])
    user = body["user"]
    assert user.keys() == {"id", "email", "name", "role", "createdAt"}
    assert ("ada@example.com", "Ada Lovelace", "user") == (user["email"], user["name"], user["role"])
    claims = jwt.decode(body["accessToken"], SECRET_KEY, algorithms=["HS256"])
    assert (user["id"], 3600) == (claims["sub"], claims["exp"] - claims["iat"])
    me = await api.get("/api/auth/me", by=None, headers={"Authorization": f"Bearer {body['accessToken']}"})
    assert {"user": user} == await me.json()


async def test_a_name_is_optional_and_an_address_unique(api: Api) -> None:
    """Without a name it is null; the second account of an address, in any case, is 409."""
    for body in ({"name": None}, {}):
        address = {"email": f"grace{len(body)}@example.com", "password": ADA["password"]}
        response = await api.post("/api/auth/register", by=None, json={**address, **body})
        assert (201, None) == (response.status, (await response.json())["user"]["name"])
    again = {"email": "GRACE0@example.com", "password": "another password"}
    refused = await api.post("/api/auth/register", by=None, json=again)
    assert (409, "email_taken") == (refused.status, (await refused.json())["code"])


async def test_registrations_at_once(settings: Settings, start_api: StartApi) -> None:
    """Of five at the same time one is 201, and four are 409."""
    # Each opens a connection to the database, which takes a busy machine longer than the usual second.
    api = await start_api(replace(settings, database_acquire_timeout_ms=30_000))
    responses = await asyncio.gather(*(api.post("/api/auth/register", by=None, json=ADA) for _ in range(5)))
    assert [201, 409, 409, 409, 409] == sorted(response.status for response in responses)


async def test_a_role_can_not_be_chosen(api: Api) -> None:
    """Nobody makes an admin of themselves."""
    refused = await api.post("/api/auth/register", by=None, json={**ADA, "role": "admin"})
    assert (400, "role") == (refused.status, (await refused.json())["errors"][0]["field"])


async def test_a_wrong_password_and_an_unknown_address_look_the_same(api: Api) -> None:
    """401 with the same words, and the challenge of the contract."""
    await api.post("/api/auth/register", by=None, json=ADA)
    answers = []
    for email, password in ((ADA["email"], "not the password"), ("nobody@example.com", ADA["password"])):
        response = await api.post("/api/auth/login", by=None, json={"email": email, "password": password})
        problem = await response.json()
        answers.append(
            (response.status, response.headers["WWW-Authenticate"], problem["code"], problem["detail"])
        )
    assert 1 == len(set(answers))
    assert (401, "Bearer", "wrong_credentials") == answers[0][:3]
    response = await api.post(
        "/api/auth/login", by=None, json={"email": " ADA@example.com ", "password": ADA["password"]}
    )
    assert 200 == response.status


async def test_tokens_are_exchanged_and_ended_by_logout(api: Api) -> None:
    """200 with new tokens, 401 for all of them after a logout; logout is 204, also for a token that nobody knows."""
    first = await (await api.post("/api/auth/register", by=None, json=ADA)).json()

    async def refresh(token: str) -> int:
        response = await api.post("/api/auth/refresh", by=None, json={"refreshToken": token})
        return response.status

    response = await api.post("/api/auth/refresh", by=None, json={"refreshToken": first["refreshToken"]})
    second = await response.json()
    assert (200, first.keys(), first["user"]) == (response.status, second.keys(), second["user"])
    assert first["refreshToken"] != second["refreshToken"]
    for token in (second["refreshToken"], "unknown"):
        ended = await api.post("/api/auth/logout", by=None, json={"refreshToken": token})
        assert (204, b"") == (ended.status, await ended.read())
    assert [401, 401, 401] == [
        await refresh(token) for token in (first["refreshToken"], second["refreshToken"], "unknown")
    ]


async def test_share_15_a_token_raced_through_two_workers_is_exchanged_twice(
    settings: Settings, start_api: StartApi
) -> None:
    """Two tabs that refresh at the same moment both stay signed in; a third use ends what they were given."""
    workers = [await start_api(settings), await start_api(settings)]
    for number in range(5):
        address = {**ADA, "email": f"ada{number}@example.com"}
        first = await (await workers[0].post("/api/auth/register", by=None, json=address)).json()
        uses = await asyncio.gather(
            *(
                worker.post("/api/auth/refresh", by=None, json={"refreshToken": first["refreshToken"]})
                for worker in workers
            )
        )
        assert [200, 200] == [use.status for use in uses]
        tabs = [(await use.json())["refreshToken"] for use in uses]
        assert 2 == len(set(tabs))
        for worker, token in zip(workers, [first["refreshToken"], tabs[0]], strict=True):
            refused = await worker.post("/api/auth/refresh", by=None, json={"refreshToken": token})
            assert (401, "invalid_refresh_token") == (refused.status, (await refused.json())["code"])

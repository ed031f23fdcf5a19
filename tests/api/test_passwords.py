"""Another password: by the current one, or by a one-time token; what it ends, and how often one may guess."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.domain.identity.passwords import Passwords
from tests.api.admin.test_audit import audits
from tests.api.conftest import Api, run_statement
from tests.api.test_auth_limits import StartStrict, start_strict
from tests.conftest import run_sql

__all__ = ["start_strict"]

OLD, NEW = "correct horse battery", "battery staple correct"
EMAIL = "ada@example.com"


async def sign_up(api: Api) -> dict[str, Any]:
    """Register; what was answered."""
    made = await api.post("/api/auth/register", by=None, json={"email": EMAIL, "password": OLD})
    signed_in: dict[str, Any] = await made.json()
    return signed_in


async def log_in(api: Api, password: str) -> Any:
    """Log in; the response."""
    return await api.post("/api/auth/login", by=None, json={"email": EMAIL, "password": password})


async def change(api: Api, signed_in: dict[str, Any], current: str = OLD, new: str = NEW) -> int:
    """Change the password with the access token of a sign-in; the status."""
    headers = {"Authorization": f"Bearer {signed_in['accessToken']}"}
    body = {"currentPassword": current, "newPassword": new}
    return (await api.post("/api/auth/password", by=None, headers=headers, json=body)).status


async def refresh(api: Api, signed_in: dict[str, Any]) -> Any:
    """Refresh a sign-in; the response."""
    return await api.post("/api/auth/refresh", by=None, json={"refreshToken": signed_in["refreshToken"]})


async def new_token(api: Api, user_id: str) -> str:
    """A one-time token for an account."""
    made = await (await api.post(f"/api/admin/users/{user_id}/password-reset", by="admin")).json()
    return str(made["token"])


async def reset(api: Api, token: str, new: str = NEW) -> int:
    """Choose another password by a token; the status."""
    body = {"token": token, "newPassword": new}
    return (await api.post("/api/auth/reset", by=None, json=body)).status


async def test_deploy_05_a_change_ends_all_other_sign_ins(api: Api) -> None:
    """The sign-in that changed it goes on, also after a refresh; the others end, and the old password with them."""
    first = await sign_up(api)
    other = await (await log_in(api, OLD)).json()
    first = await (await refresh(api, first)).json()
    with capture_logs() as lines:
        assert 204 == await change(api, first)
    assert 401 == (await refresh(api, other)).status
    assert 200 == (await refresh(api, first)).status
    assert (401, 200) == ((await log_in(api, OLD)).status, (await log_in(api, NEW)).status)
    assert [{"event": "audit.password_changed", "account_id": first["user"]["id"]}] == audits(lines)
    assert not [text for text in (OLD, NEW, EMAIL) if text in str(lines)]


async def test_deploy_05_a_wrong_current_password_changes_nothing(api: Api, database_url: str) -> None:
    """It is 401; a short new one is 400; an account without a password is 409."""
    signed_in = await sign_up(api)
    assert 401 == await change(api, signed_in, current=NEW)
    assert 400 == await change(api, signed_in, new="short")
    assert 200 == (await log_in(api, OLD)).status
    assert 200 == (await refresh(api, signed_in)).status
    run_sql(database_url, f"UPDATE users SET password_hash = NULL WHERE email = '{EMAIL}'")  # noqa: S608 - a constant
    assert 409 == await change(api, signed_in)


async def test_deploy_05_a_login_under_way_does_not_outlive_the_change(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login whose password was right when it was checked, and no more when it is let in, is refused."""
    signed_in = await sign_up(api)
    checked, go_on = asyncio.Event(), asyncio.Event()
    passwords = api.services.accounts._passwords
    matches = Passwords.matches

    async def slow(self: Passwords, known: str | None, password: str, **options: Any) -> bool:
        right = await matches(self, known, password, **options)
        if not checked.is_set():
            checked.set()
            await go_on.wait()
        return right

    monkeypatch.setattr(type(passwords), "matches", slow)
    login = asyncio.create_task(log_in(api, OLD))
    await checked.wait()
    assert 204 == await change(api, signed_in)
    go_on.set()
    assert 401 == (await login).status


async def test_deploy_05_a_token_works_once(api: Api, database_url: str) -> None:
    """The first use gives the password and ends every sign-in; a used, replaced, expired or made-up one is 400."""
    signed_in = await sign_up(api)
    user_id = signed_in["user"]["id"]
    replaced, token = await new_token(api, user_id), await new_token(api, user_id)
    with capture_logs() as lines:
        statuses = await asyncio.gather(reset(api, token), reset(api, token), reset(api, replaced))
    assert ([204, 400], 400) == (sorted(statuses[:2]), statuses[2])
    assert [{"event": "audit.password_reset", "account_id": user_id}] == audits(lines)
    assert 401 == (await refresh(api, signed_in)).status
    assert (401, 200) == ((await log_in(api, OLD)).status, (await log_in(api, NEW)).status)

    expired = await new_token(api, user_id)
    run_sql(database_url, "UPDATE password_resets SET expires_at = now()")
    assert [400, 400] == [await reset(api, expired, OLD), await reset(api, "made up", OLD)]


async def test_deploy_05_a_change_uses_up_the_token(api: Api, database_url: str) -> None:
    """Who has changed the password needs no reset any more: its token opens nothing."""
    signed_in = await sign_up(api)
    token = await new_token(api, signed_in["user"]["id"])
    assert 204 == await change(api, signed_in)
    assert 400 == await reset(api, token, OLD)
    assert [] == run_statement(database_url, "SELECT user_id FROM password_resets")


async def test_deploy_05_guesses_of_the_current_password_are_failed_logins(
    start_strict: StartStrict,
) -> None:
    """Five wrong ones, here or at the login, and both are 429; right ones cost nothing."""
    api = await start_strict()
    signed_in = await sign_up(api)
    passwords = (OLD, NEW)
    for turn in range(6):
        assert 204 == await change(api, signed_in, current=passwords[turn % 2], new=passwords[1 - turn % 2])
    assert 401 == (await log_in(api, "wrong")).status
    assert [401] * 4 == [await change(api, signed_in, current="wrong") for _ in range(4)]
    assert (429, 429) == (await change(api, signed_in), (await log_in(api, OLD)).status)


async def test_deploy_05_guesses_of_tokens_are_limited_by_address(start_strict: StartStrict) -> None:
    """Twenty made-up tokens from an address, and the next one is 429."""
    api = await start_strict()
    assert [400] * 20 + [429] == [await reset(api, "made up") for _ in range(21)]

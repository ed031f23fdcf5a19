"""Accounts over HTTP: listed, changed, deactivated; the last admin stays; limits by plan."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from server.domain.identity.tokens import Caller
from server.settings import Settings
from tests.api.admin.test_audit import audits
from tests.api.conftest import Api, StartApi, run_statement
from tests.conftest import run_sql

PERSON = {"email": "ada@example.com", "password": "correct horse battery"}


async def change(api: Api, user_id: object, by: str = "admin", **changes: Any) -> tuple[int, dict[str, Any]]:
    """PATCH an account: the status, and what was answered."""
    response = await api.request("PATCH", f"/api/admin/users/{user_id}", by=by, json=changes)
    return response.status, await response.json()


async def test_deploy_05_accounts_are_listed_newest_first(api: Api, database_url: str) -> None:
    """Pages of one are the whole list; the filters narrow it; a cursor belongs to its filters."""
    run_sql(database_url, "UPDATE users SET created_at = now() - length(email) * interval '1 hour'")
    emails, cursor = [], ""
    while cursor is not None:
        page = await (
            await api.get(f"/api/admin/users?limit=1{cursor and f'&cursor={cursor}'}", by="admin")
        ).json()
        emails += [user["email"] for user in page["users"]]
        cursor = page["nextCursor"]
    assert ["user@example.com", "admin@example.com", "other@example.com"] == sorted(
        emails, key=lambda email: (email != "user@example.com", email)
    )
    assert "user@example.com" == emails[0]

    for query, expected in (
        ("role=admin", {"admin@example.com"}),
        ("q=OTHER", {"other@example.com"}),
        ("q=example.com&role=user", {"user@example.com", "other@example.com"}),
        ("q=%25", set()),
    ):
        found = await (await api.get(f"/api/admin/users?{query}", by="admin")).json()
        assert expected == {user["email"] for user in found["users"]}, query
    first = await (await api.get("/api/admin/users?limit=1", by="admin")).json()
    foreign = await api.get(f"/api/admin/users?limit=1&role=user&cursor={first['nextCursor']}", by="admin")
    assert 400 == foreign.status


async def test_deploy_05_changes_are_made_seen_and_audited(api: Api) -> None:
    """Each field by itself, others stay; one audit event a change; the text of none of them is a person's."""
    user_id = api.people["user"].user_id
    with capture_logs() as lines:
        assert (200, "team") == ((made := await change(api, user_id, plan="team"))[0], made[1]["plan"])
        assert "admin" == (await change(api, user_id, role="admin"))[1]["role"]
        assert (await change(api, user_id, deactivated=True))[1]["deactivatedAt"] is not None
        status, account = await change(api, user_id, deactivated=False, plan=None)
    assert (200, "admin", None, False, None) == (
        status, account["role"], account["plan"], account["deactivated"], account["deactivatedAt"],
    )  # fmt: skip
    assert account == await (await api.get(f"/api/admin/users/{user_id}", by="admin")).json()
    assert [["plan"], ["role"], ["is_deactivated"], ["is_deactivated", "plan"]] == [
        line["changed"] for line in audits(lines)
    ]
    assert {(str(api.people["admin"].user_id), str(user_id))} == {
        (line["admin_id"], line["account_id"]) for line in audits(lines)
    }
    assert "example.com" not in str(lines)


@pytest.mark.parametrize(
    "changes",
    [{"role": "root"}, {"role": None}, {"plan": "Team"}, {"plan": "a b"}, {"plan": ""}, {"plan": "a" * 33},
     {"deactivated": "yes"}, {"deactivated": None}, {"email": "x@example.com"}, {"password": "correct horse"}],
)  # fmt: skip
async def test_deploy_05_wrong_changes_change_nothing(api: Api, changes: dict[str, Any]) -> None:
    """What is not understood is a 400 that names the field."""
    user_id = api.people["user"].user_id
    before = await (await api.get(f"/api/admin/users/{user_id}", by="admin")).json()
    status, problem = await change(api, user_id, **changes)
    assert (400, set(changes)) == (status, {error["field"] for error in problem["errors"]})
    assert before == await (await api.get(f"/api/admin/users/{user_id}", by="admin")).json()


async def test_deploy_05_the_last_admin_stays_over_http(api: Api) -> None:
    """Alone, an admin can't demote or deactivate themself; beside another they can."""
    admin = api.people["admin"].user_id
    for changes in ({"role": "user"}, {"deactivated": True}):
        status, problem = await change(api, admin, **changes)
        assert (409, "last_admin") == (status, problem["code"])
    assert 200 == (await change(api, admin, plan="team", role="admin"))[0]
    await change(api, api.people["other"].user_id, role="admin")
    assert 200 == (await change(api, admin, role="user"))[0]


async def test_deploy_05_two_admins_who_demote_each_other_leave_one(api: Api, database_url: str) -> None:
    """Whichever comes second is refused, however close they are."""
    other = api.people["other"]
    await change(api, other.user_id, role="admin")
    api.people["second"] = Caller(other.user_id, "admin")
    assert (
        200 == (await api.get("/api/admin/users", by="second")).status
    )  # from now on the role is remembered
    statuses = await asyncio.gather(
        change(api, other.user_id, role="user"),
        change(api, api.people["admin"].user_id, by="second", role="user"),
    )
    assert [200, 409] == sorted(status for status, _ in statuses)
    assert [(1,)] == run_statement(database_url, "SELECT count(*)::int FROM users WHERE role = 'admin'")


async def test_deploy_05_deactivation_signs_out(api: Api) -> None:
    """The refresh token and the password open nothing any more; reactivated, the password does, the token does not."""
    made = await (await api.post("/api/auth/register", by=None, json=PERSON)).json()
    refresh = {"refreshToken": made["refreshToken"]}
    user_id = made["user"]["id"]
    await change(api, user_id, deactivated=True)
    assert 401 == (await api.post("/api/auth/login", by=None, json=PERSON)).status
    assert 401 == (await api.post("/api/auth/refresh", by=None, json=refresh)).status
    await change(api, user_id, deactivated=False)
    assert 401 == (await api.post("/api/auth/refresh", by=None, json=refresh)).status
    assert 200 == (await api.post("/api/auth/login", by=None, json=PERSON)).status


async def test_deploy_05_other_workers_see_it_at_their_next_check(
    api: Api, start_api: StartApi, settings: Settings
) -> None:
    """A process that looks the caller up anew lets a deactivated one in no more, and a new admin in."""
    await change(api, api.people["user"].user_id, deactivated=True)
    await change(api, api.people["other"].user_id, role="admin")
    second = await start_api(settings)
    assert 401 == (await second.get("/api/auth/me")).status
    assert 200 == (await second.get("/api/admin/users", by="other")).status


async def test_deploy_05_a_plan_changes_the_limits(
    api: Api, start_api: StartApi, settings: Settings, tmp_path: Path
) -> None:
    """With [plans] in the limits file, an account's plan is what its answers say is its limit."""
    limits = tmp_path / "ratelimits.toml"
    limits.write_text(settings.rate_limits_file.read_text() + "\n[plans.team]\ngenerous = 7\n")
    await change(api, api.people["user"].user_id, plan="team")
    second = await start_api(replace(settings, rate_limits_file=limits))
    assert "7" == (await second.get("/api/classes")).headers["X-RateLimit-Limit"]
    assert "7" != (await second.get("/api/classes", by="other")).headers["X-RateLimit-Limit"]


async def test_deploy_05_a_reset_token_is_answered_once(api: Api, database_url: str) -> None:
    """Stored hashed, for an hour; a second one replaces it, also under the same Idempotency-Key."""
    path = f"/api/admin/users/{api.people['user'].user_id}/password-reset"
    key = {"Idempotency-Key": "one"}
    with capture_logs() as lines:
        first = await (await api.post(path, by="admin", headers=key)).json()
        second = await (await api.post(path, by="admin", headers=key)).json()
    assert first["token"] != second["token"]
    assert first["token"] not in str(lines)
    assert ["audit.password_reset_issued"] * 2 == [line["event"] for line in audits(lines)]
    rows = run_statement(
        database_url,
        "SELECT token_hash, round(extract(epoch FROM expires_at - now()) / 60)::int FROM password_resets",
    )
    assert [(hashlib.sha256(second["token"].encode()).digest(), 60)] == [
        (bytes(token), minutes) for token, minutes in rows
    ]
    assert [] == run_statement(database_url, "SELECT key FROM idempotency_keys")


async def test_deploy_05_who_has_no_password_here_gets_no_token(api: Api, database_url: str) -> None:
    """An external issuer keeps the password of its people; nobody at all is 404."""
    user_id = api.people["user"].user_id
    outside = (
        "UPDATE users SET external_issuer = 'i', external_subject = 's' WHERE email = 'user@example.com'"
    )
    run_sql(database_url, outside)
    refused = await api.post(f"/api/admin/users/{user_id}/password-reset", by="admin")
    assert (409, "external_account") == (refused.status, (await refused.json())["code"])
    nobody = UUID(int=7)
    assert 404 == (await api.post(f"/api/admin/users/{nobody}/password-reset", by="admin")).status
    assert 404 == (await change(api, nobody, role="admin"))[0]
    assert 404 == (await api.get(f"/api/admin/users/{nobody}", by="admin")).status

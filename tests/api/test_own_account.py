"""What is kept of a person, exported as a whole and deleted as a whole."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from typing import Any

import redis
from structlog.testing import capture_logs

from server.stores.postgres.queries import load_queries
from tests.api.admin.test_audit import audits
from tests.api.conftest import Api, Course, run_statement
from tests.api.test_auth_limits import StartStrict, start_strict
from tests.conftest import run_sql

__all__ = ["start_strict"]

PERSON = {"email": "ada@example.com", "password": "correct horse battery", "name": "Ada"}
# Worked out from other tables by triggers.
DERIVED = {"user_deck_stats"}
TABLES = """
    SELECT DISTINCT table_name FROM information_schema.columns
     WHERE table_schema = 'public' AND column_name = 'user_id' ORDER BY table_name
"""


async def study(api: Api, course: Course, database_url: str) -> tuple[str, dict[str, str]]:
    """Register somebody who does everything that leaves a row; their id and their header."""
    run_sql(database_url, "UPDATE classes SET scheduler = 'fsrs'")
    made = await (await api.post("/api/auth/register", by=None, json=PERSON)).json()
    user_id = str(made["user"]["id"])
    bearer = {"Authorization": f"Bearer {made['accessToken']}"}
    deck = {"deckIds": [str(course.decks["Analysis"])]}
    session = await (await api.post("/api/sessions", by=None, headers=bearer, json=deck)).json()
    card = course.cards["r1"]
    rating = {"confidenceLevel": 4, "sessionId": session["sessionId"], "responseTime": 1500}
    keyed = bearer | {"Idempotency-Key": "one"}
    for method, path, headers, body in (
        ("PUT", f"/api/progress/cards/{card}", keyed, rating),
        ("PUT", f"/api/bookmarks/{card}", bearer, None),
        ("GET", f"/api/classes/{course.classes['Risk']}", bearer, None),
    ):
        assert (await api.request(method, path, by=None, headers=headers, json=body)).status < 300
    assert 201 == (await api.post(f"/api/admin/users/{user_id}/password-reset", by="admin")).status
    return user_id, bearer


def rows_of(database_url: str, user_id: str) -> dict[str, int]:
    """How many rows each table has of a user."""
    counted = {}
    for (table,) in run_statement(database_url, TABLES):
        statement = f"SELECT count(*)::int FROM {table} WHERE user_id = %s"  # noqa: S608 - a table of the schema
        counted[table] = run_statement(database_url, statement, user_id)[0][0]
    return counted


def cached_of(redis_url: str, user_id: str) -> list[bytes]:
    """The cached values that hold something of a user."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        keys = [key for key in client.scan_iter(f"*{user_id}*") if client.type(key) == b"string"]
        values = [client.get(key) for key in keys]
    return [value for value in values if isinstance(value, bytes) and b"overlay" in value]


async def delete(api: Api, bearer: dict[str, str], **body: Any) -> int:
    """DELETE the account; the status."""
    return (await api.delete("/api/auth/me", by=None, headers=bearer, json=body)).status


async def test_deploy_05_the_export_is_everything(api: Api, course: Course, database_url: str) -> None:
    """Every table with rows of a person is in it, with that person's alone, and no secret is."""
    user_id, bearer = await study(api, course, database_url)
    other = await api.put(f"/api/bookmarks/{course.cards['r2']}", by="other")
    assert 201 == other.status
    with capture_logs() as lines:
        response = await api.get("/api/auth/me/export", by=None, headers=bearer)
    text, export = await response.text(), await response.json()
    assert "no-store" == response.headers["Cache-Control"]
    card = str(course.cards["r1"])
    assert (user_id, "ada@example.com", "Ada", True) == (
        export["account"]["id"], export["account"]["email"], export["account"]["name"],
        export["account"]["hasPassword"],
    )  # fmt: skip
    for section in ("progress", "ratings", "memory", "bookmarks"):
        assert [card] == [row["flashcardId"] for row in export[section]], section
    assert ([card], [str(course.decks["Analysis"])]) == (
        [row["flashcardId"] for row in export["sessions"][0]["ratings"]], export["sessions"][0]["deckIds"]
    )  # fmt: skip
    assert (1, 1, "one") == (
        len(export["signIns"]), len(export["activeDays"]), export["idempotencyKeys"][0]["key"]
    )  # fmt: skip
    assert export["passwordReset"] is not None
    assert "argon2" not in text
    assert [{"event": "audit.account_exported", "account_id": user_id}] == audits(lines)


async def test_deploy_05_no_table_is_forgotten(api: Api, course: Course, database_url: str) -> None:
    """These tests fill each table that holds rows of people, and the export reads each of them."""
    user_id, _ = await study(api, course, database_url)
    rows = rows_of(database_url, user_id)
    assert {} == {table: count for table, count in rows.items() if count == 0}
    read = set(re.findall(r"FROM ([a-z_]+) AS", load_queries()["export_user"].sql))
    assert set() == rows.keys() - DERIVED - read


async def test_deploy_05_a_deleted_account_leaves_nothing(
    api: Api, course: Course, database_url: str, redis_url: str
) -> None:
    """No row in any table, nothing in the cache, no sign-in; other people's rows stay."""
    user_id, bearer = await study(api, course, database_url)
    await api.put(f"/api/bookmarks/{course.cards['r2']}", by="other")
    assert cached_of(redis_url, user_id)
    with capture_logs() as lines:
        assert 204 == await delete(api, bearer, password=PERSON["password"])
    assert {0} == set(rows_of(database_url, user_id).values())
    assert [] == run_statement(database_url, "SELECT id FROM users WHERE id = %s", user_id)
    assert [] == cached_of(redis_url, user_id)
    assert [{"event": "audit.account_deleted", "account_id": user_id}] == audits(lines)
    assert 401 == (await api.get("/api/auth/me", by=None, headers=bearer)).status
    assert [(1,)] == run_statement(database_url, "SELECT count(*)::int FROM bookmarks")
    assert 201 == (await api.post("/api/auth/register", by=None, json=PERSON)).status


async def test_deploy_05_a_deletion_needs_the_password(api: Api, course: Course, database_url: str) -> None:
    """None at all is 400, a wrong one 401, and the account is as it was."""
    user_id, bearer = await study(api, course, database_url)
    before = rows_of(database_url, user_id)
    assert (400, 401) == (await delete(api, bearer), await delete(api, bearer, password="another"))
    assert before == rows_of(database_url, user_id)


async def test_deploy_05_the_last_admin_does_not_delete_themself(api: Api) -> None:
    """409 while there is no other admin; an account without a password is asked for none."""
    assert 409 == (await api.delete("/api/auth/me", by="admin", json={})).status
    await api.request(
        "PATCH", f"/api/admin/users/{api.people['other'].user_id}", by="admin", json={"role": "admin"}
    )
    assert 204 == (await api.delete("/api/auth/me", by="admin", json={})).status


async def test_deploy_05_writes_beside_a_deletion_do_not_fail(
    api: Api, course: Course, database_url: str
) -> None:
    """Ratings at the same moment are recorded before it or refused after it; none is a 500, and none is left."""
    user_id, bearer = await study(api, course, database_url)
    body = {"confidenceLevel": 3}

    async def rate(card: str) -> int:
        path = f"/api/progress/cards/{course.cards[card]}"
        return (await api.put(path, by=None, headers=bearer, json=body)).status

    results = await asyncio.gather(
        *(rate(card) for card in ("r1", "r2", "r3", "l1", "l2")),
        delete(api, bearer, password=PERSON["password"]),
    )
    assert 204 == results[-1]
    assert set(results[:-1]) <= {200, 401}
    assert {0} == set(rows_of(database_url, user_id).values())


async def test_deploy_05_guesses_at_a_deletion_are_failed_logins(start_strict: StartStrict) -> None:
    """Five wrong passwords, and the right one is 429."""
    api = await start_strict()
    made = await (await api.post("/api/auth/register", by=None, json=PERSON)).json()
    bearer = {"Authorization": f"Bearer {made['accessToken']}"}
    assert [401] * 5 == [await delete(api, bearer, password="wrong") for _ in range(5)]
    assert 429 == await delete(api, bearer, password=PERSON["password"])

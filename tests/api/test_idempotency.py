"""Idempotency-Key: whatever is delivered twice happens once, and both times the answer is the same."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pytest
import redis
from aiohttp import ClientResponse

from server.api.admin.imports import FORM
from server.api.routes import ROUTES
from tests.api.conftest import Api, Course
from tests.conftest import run_sql
from tests.stores.postgres.databases import ask
from tests.support.waiting import wait_until

KEY = "5b1f3c0e-offline-phone"


@dataclass(frozen=True)
class Write:
    """A route that writes; `{deck}`, `{card}` and `{session}` stand for ids."""

    method: str
    path: str
    status: int
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    by: str = "user"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


IN_A_FORM = {"Content-Type": f"{FORM}; boundary=b"}
WRITES = (
    Write("PUT", "/api/progress/cards/{card}", 200, {"confidenceLevel": 4, "sessionId": "{session}"}),
    Write("POST", "/api/progress/cards", 200, {"ratings": [{"flashcardId": "{card}", "confidenceLevel": 2}] * 3}),
    Write("POST", "/api/sessions", 201, {"deckIds": ["{deck}"]}),
    Write("POST", "/api/sessions/{session}/end", 200),
    Write("PUT", "/api/bookmarks/{card}", 201),
    Write("DELETE", "/api/bookmarks/{card}", 204),
    Write("PATCH", "/api/profile", 200, {"name": "Ada", "timeZone": "Europe/Berlin"}),
    Write("POST", "/api/admin/classes", 201, {"name": "Law", "isPublished": True}, by="admin"),
    Write("PATCH", "/api/admin/classes/{class}", 200, {"scheduler": "fsrs"}, by="admin"),
    Write("DELETE", "/api/admin/classes/{class}", 204, by="admin"),
    Write("POST", "/api/admin/decks", 201, {"classId": "{class}", "name": "Torts"}, by="admin"),
    Write("PATCH", "/api/admin/decks/{deck}", 200, {"order": 7}, by="admin"),
    Write("DELETE", "/api/admin/decks/{deck}", 204, by="admin"),
    Write("POST", "/api/admin/decks/{deck}/import", 200, None, {"Content-Type": "text/csv"}, by="admin"),
    Write("POST", "/api/admin/decks/{deck}/import/form", 200, None, IN_A_FORM, by="admin"),
    Write("POST", "/api/admin/flashcards", 201, {"deckId": "{deck}", "question": "q", "answer": "a"}, by="admin"),
    Write("PATCH", "/api/admin/flashcards/{card}", 200, {"answer": "another"}, by="admin"),
    Write("DELETE", "/api/admin/flashcards/{card}", 204, by="admin"),
    Write("DELETE", "/api/admin/rate-limits/user:{card}", 204, by="admin"),
    Write("PUT", "/api/admin/rate-limits/user:{card}/overrides/*", 200, {"limit": None, "seconds": 60}, by="admin"),
    Write("DELETE", "/api/admin/rate-limits/user:{card}/overrides/*", 204, by="admin"),
    Write("PATCH", "/api/admin/users/{person}", 200, {"plan": "team"}, by="admin"),
)  # fmt: skip
# Everything that a write leaves behind.
TRACES = """
    SELECT (SELECT array_agg(p.* ORDER BY p) FROM user_card_progress AS p), (SELECT count(*) FROM review_log),
           (SELECT count(*) FROM session_cards), (SELECT array_agg(s.* ORDER BY s) FROM study_sessions AS s),
           (SELECT array_agg(b.* ORDER BY b) FROM bookmarks AS b), (SELECT array_agg(u.* ORDER BY u) FROM users AS u),
           (SELECT array_agg(s.* ORDER BY s) FROM user_stats AS s),
           (SELECT array_agg(c.* ORDER BY c) FROM classes AS c),
           (SELECT array_agg(d.* ORDER BY d) FROM decks AS d), (SELECT array_agg(f.* ORDER BY f) FROM flashcards AS f),
           (SELECT count(*) FROM idempotency_keys)
"""


async def send(
    api: Api, write: Write, ids: dict[str, str], *, key: str | None = KEY, by: str | None = None
) -> ClientResponse:
    """Send a write; with a key, unless it is None."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], value)
        if isinstance(value, list):
            return [fill(entry) for entry in value]
        return {name: fill(entry) for name, entry in value.items()} if isinstance(value, dict) else value

    body: dict[str, Any] = {} if write.body is None else {"json": fill(write.body)}
    if "Content-Type" in write.headers:
        file = b"question r1,changed\nnew,card\n"
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        is_form = write.headers["Content-Type"].startswith(FORM)
        body = {"data": head + file + b"\r\n--b--\r\n" if is_form else file}
    headers = write.headers if key is None else {**write.headers, "Idempotency-Key": key}
    return await api.request(write.method, fill(write.path), by=by or write.by, headers=headers, **body)


@pytest.fixture
async def ids(api: Api, course: Course) -> dict[str, str]:
    """A deck, a card, a running session of the user's, and another person."""
    deck_id = str(course.decks["Analysis"])
    started = await api.post("/api/sessions", json={"deckIds": [deck_id]})
    return {
        "class": str(course.classes["Risk"]),
        "deck": deck_id,
        "card": str(course.cards["r1"]),
        "session": (await started.json())["sessionId"],
        "person": str(api.people["other"].user_id),
    }


RATE, BOOKMARK = WRITES[0], WRITES[4]
RENAME = Write("PATCH", "/api/admin/classes/{class}", 200, {"name": "Hazards"}, by="admin")


def test_every_route_that_writes_is_here() -> None:
    """A new one needs an entry above; those whose answers hold tokens, and of the operators' numbers, take no key."""
    writing = {
        f"{route.method} {re.sub('{.*?}', '…', route.path)}"
        for route in ROUTES
        if route.method != "GET"
        and not route.path.startswith(("/api/auth/", "/api/metrics"))
        and not route.path.endswith("/password-reset")
    }
    assert writing == {re.sub(r"(user:)?{.*?}|(?<=overrides/)\*", "…", str(write)) for write in WRITES}


@pytest.mark.parametrize("write", WRITES, ids=str)
async def test_a_repeated_write_answers_the_same_and_changes_nothing(
    api: Api, ids: dict[str, str], database_url: str, write: Write
) -> None:
    """Status, body and type are those of the first answer; only a header says that it is a repeat."""
    first = await send(api, write, ids)
    assert write.status == first.status, await first.text()
    assert "Idempotency-Replayed" not in first.headers
    traces = ask(database_url, TRACES)

    for _ in range(2):
        again = await send(api, write, ids)
        assert write.status == again.status
        assert await first.read() == await again.read()
        for header in ("Content-Type", "Location"):
            assert first.headers.get(header) == again.headers.get(header)
        assert ("no-store", "true") == (again.headers["Cache-Control"], again.headers["Idempotency-Replayed"])
        assert traces == ask(database_url, TRACES)


@pytest.mark.parametrize("write", WRITES, ids=str)
async def test_a_write_delivered_three_times_at_once_happens_once(
    api: Api, ids: dict[str, str], database_url: str, write: Write
) -> None:
    """Who comes while the first is under way waits for it, and gets its answer."""
    answers = await asyncio.gather(*(send(api, write, ids) for _ in range(3)))

    assert [write.status] * 3 == [answer.status for answer in answers]
    assert 1 == len({await answer.read() for answer in answers})
    assert 2 == sum("Idempotency-Replayed" in answer.headers for answer in answers)
    assert [(1,)] == ask(database_url, "SELECT count(*) FROM idempotency_keys")
    if write is RATE:
        assert [(1,)] == ask(database_url, "SELECT times_seen FROM user_card_progress")
        assert [(1,)] == ask(database_url, "SELECT count(*) FROM session_cards")


async def test_another_key_is_another_write(api: Api, ids: dict[str, str], database_url: str) -> None:
    """Keys are compared exactly; without one, every request counts."""
    for key in ("a", "A", "a b", '"a"', None, None):
        assert 200 == (await send(api, RATE, ids, key=key)).status
    assert [(6,)] == ask(database_url, "SELECT times_seen FROM user_card_progress")


async def test_keys_belong_to_their_user(api: Api, ids: dict[str, str], database_url: str) -> None:
    """Two students may choose the same key."""
    for by in ("user", "other"):
        answer = await send(api, BOOKMARK, ids, by=by)
        assert 201 == answer.status
        assert "Idempotency-Replayed" not in answer.headers
    assert [(2,)] == ask(database_url, "SELECT count(*) FROM bookmarks")


@pytest.mark.parametrize(
    "other",
    [
        Write("PUT", "/api/progress/cards/{card}", 422, {"confidenceLevel": 5, "sessionId": "{session}"}),
        Write("PUT", "/api/progress/cards/{other}", 422, {"confidenceLevel": 4, "sessionId": "{session}"}),
        Write("PUT", "/api/bookmarks/{card}", 422),
        Write("DELETE", "/api/bookmarks/{card}", 422),
    ],
    ids=["body", "path", "route", "method"],
)
async def test_a_key_of_another_request_is_refused(
    api: Api, ids: dict[str, str], course: Course, database_url: str, other: Write
) -> None:
    """A reused key is a mistake of the client's; nothing happens, and the first answer stays."""
    first = await send(api, RATE, ids)
    traces = ask(database_url, TRACES)

    refused = await send(api, other, {**ids, "other": str(course.cards["r2"])})

    assert 422 == refused.status
    problem = await refused.json()
    assert ("application/problem+json", "idempotency_key_reused") == (refused.content_type, problem["code"])
    assert traces == ask(database_url, TRACES)
    assert await first.read() == await (await send(api, RATE, ids)).read()


async def test_the_method_is_part_of_the_request(api: Api, ids: dict[str, str], database_url: str) -> None:
    """A bookmark is not forgotten under the key that has made it: same path, same body, another request."""
    assert 201 == (await send(api, BOOKMARK, ids)).status
    assert 422 == (await send(api, Write("DELETE", BOOKMARK.path, 422), ids)).status
    assert [(1,)] == ask(database_url, "SELECT count(*) FROM bookmarks")


@pytest.mark.parametrize("key", ["", "x" * 256, "smörgås", "tab\there"])
async def test_a_key_that_is_none_is_refused(
    api: Api, ids: dict[str, str], database_url: str, key: str
) -> None:
    """The header is named as the field that is wrong."""
    refused = await send(api, RATE, ids, key=key)

    assert 400 == refused.status
    assert ["Idempotency-Key"] == [error["field"] for error in (await refused.json())["errors"]]
    assert [(0,)] == ask(database_url, "SELECT count(*) FROM user_card_progress")


async def test_two_keys_are_none(api: Api, ids: dict[str, str]) -> None:
    """The draft knows one key a request."""
    headers = [("Authorization", f"Bearer {api.tokens.issue(api.people['user'])}")]
    headers += [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    refused = await api.client.put(f"/api/bookmarks/{ids['card']}", headers=headers)
    assert 400 == refused.status


async def test_the_longest_key_is_accepted(api: Api, ids: dict[str, str]) -> None:
    """255 characters, every printable one of ASCII among them."""
    key = ("".join(map(chr, range(0x21, 0x7F))) * 3)[:255]
    assert [200, 200] == [(await send(api, RATE, ids, key=key)).status for _ in range(2)]


async def test_a_failed_write_may_be_tried_again(
    api: Api, ids: dict[str, str], course: Course, database_url: str
) -> None:
    """Only success is remembered: what was refused for a reason that has gone is done under the same key."""
    ids["card"] = str(course.cards["d1"])
    assert 404 == (await send(api, RATE, ids)).status
    assert [(0,)] == ask(database_url, "SELECT count(*) FROM idempotency_keys")

    run_sql(database_url, "UPDATE decks SET is_published = true")
    run_sql(database_url, "UPDATE flashcards SET is_published = true")

    answer = await send(api, RATE, ids)
    assert 200 == answer.status
    assert "Idempotency-Replayed" not in answer.headers


async def test_a_key_lives_for_a_day(api: Api, ids: dict[str, str], database_url: str) -> None:
    """A minute before it is still known; a day later it may be used again, for another request even."""
    await send(api, RATE, ids)
    age = "UPDATE idempotency_keys SET created_at = created_at - interval '{}'"
    run_sql(database_url, age.format("23 hours 59 minutes"))
    assert "Idempotency-Replayed" in (await send(api, RATE, ids)).headers

    run_sql(database_url, age.format("1 minute"))
    assert 201 == (await send(api, BOOKMARK, ids)).status
    assert 201 == (await send(api, BOOKMARK, ids)).status
    assert [(True,)] == ask(
        database_url, "SELECT created_at > now() - interval '1 hour' FROM idempotency_keys"
    )


async def test_expired_keys_are_deleted_on_the_way(api: Api, ids: dict[str, str], database_url: str) -> None:
    """Each new key takes the two oldest expired ones with it, whoever they belong to; living ones stay."""
    run_sql(
        database_url,
        "INSERT INTO idempotency_keys (user_id, key, fingerprint, created_at)"
        " SELECT id, n, sha256(''), now() - n * interval '20 hours' FROM users, generate_series(1, 2) AS n",
    )
    counts = []
    for key in ("a", "b", "c"):
        await send(api, RATE, ids, key=key)
        counts += ask(
            database_url, "SELECT count(*) FILTER (WHERE key = '2'), count(*) FROM idempotency_keys"
        )
    assert [(1, 5), (0, 5), (0, 6)] == counts


async def test_a_write_takes_the_place_of_one_that_failed(
    api: Api, ids: dict[str, str], database_url: str
) -> None:
    """Who waits for a request that comes to nothing does the work itself."""
    take = "INSERT INTO idempotency_keys (user_id, key, fingerprint) VALUES (%s, %s, sha256(''))"
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%rate_card%'"
    )
    with closing(psycopg2.connect(database_url)) as other_worker, other_worker.cursor() as cursor:
        cursor.execute(take, (str(api.people["user"].user_id), KEY))
        request = asyncio.create_task(send(api, RATE, ids))
        await wait_until(lambda: ask(database_url, waiting) == [(1,)], "the request waits for the key")
        other_worker.rollback()
        answer = await request
    assert 200 == answer.status
    assert "Idempotency-Replayed" not in answer.headers
    assert [(1,)] == ask(database_url, "SELECT times_seen FROM user_card_progress")


@pytest.mark.parametrize("write", [RATE, RENAME], ids=str)
async def test_a_repeat_says_what_a_worker_that_died_could_not(
    api: Api, ids: dict[str, str], redis_url: str, write: Write
) -> None:
    """Killed after its commit, a worker leaves the pages as they were cached; who asks again finds them renewed."""
    page = f"/api/classes/{ids['class']}"
    before = await (await api.get(page)).json()
    with closing(redis.Redis.from_url(redis_url)) as client:
        cached = {key: client.get(key) for key in client.keys("[co]:*")}
        assert write.status == (await send(api, write, ids)).status
        for key, value in cached.items():
            client.set(key, value or b"", px=60_000)
    assert before == await (await api.get(page)).json()
    assert "Idempotency-Replayed" in (await send(api, write, ids)).headers
    after = await (await api.get(page)).json()
    assert before != after
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.flushall()
    assert after == await (await api.get(page)).json()


async def test_answers_with_tokens_are_not_kept(api: Api, database_url: str) -> None:
    """Registering and logging in take no notice of a key: their answers are secrets."""
    body = {"email": "ada@example.com", "password": "correct horse battery"}
    for path in ("/api/auth/register", "/api/auth/login"):
        answer = await api.post(path, by=None, json=body, headers={"Idempotency-Key": KEY})
        assert answer.ok
    assert [(0,)] == ask(database_url, "SELECT count(*) FROM idempotency_keys")

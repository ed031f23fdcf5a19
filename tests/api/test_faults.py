"""What clients see while a server behind the service is away, slow, or back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp import ClientResponse

from server.development import EmbeddedServer
from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi, run_statement
from tests.conftest import run_sql
from tests.support.waiting import wait_until

DRIVER_WORDS = (
    "psycopg",
    "SELECT",
    "relation",
    "column",
    "Traceback",
    "server closed",
    "127.0.0.1",
    "postgres",
)


@pytest.fixture
async def fragile(own_redis: EmbeddedServer, settings: Settings, start_api: StartApi) -> Api:
    """The service over a Redis that the test may kill."""
    return await start_api(replace(settings, redis_url=own_redis.url))


def kill(server: EmbeddedServer) -> None:
    """End a server at once."""
    server.process.kill()
    server.process.wait()


async def test_redis_killed_under_load_is_nobodys_error(
    own_redis: EmbeddedServer, fragile: Api, course: Course
) -> None:
    """Readers and writers go on: no 5xx, every rating counted, every answer true, and BYPASS says why it is slower."""
    risk, card = course.classes["Risk"], course.cards["r1"]
    answers: list[ClientResponse] = []
    seen: list[tuple[int, int]] = []

    async def study(by: str) -> None:
        for number in range(1, 21):
            if by == "user" and number == 5:
                kill(own_redis)
            rated = await fragile.put(
                f"/api/progress/cards/{card}", by=by, json={"confidenceLevel": number % 5 + 1}
            )
            progress = await fragile.get(f"/api/progress/class/{risk}", by=by)
            answers.extend([rated, progress, await fragile.get("/api/classes", by=by)])
            status = {0: "newCards", 1: "newCards", 2: "learningCards"}.get(number % 5, "masteredCards")
            seen.append(((await rated.json())["timesSeen"], number))
            body = await progress.json()
            assert (1, 1) == (body["studiedCards"], body[status]), (by, number, body)

    await asyncio.gather(*(study(by) for by in ("user", "other", "admin")))

    assert {200} == {answer.status for answer in answers}
    assert all(times == number for times, number in seen)
    assert "BYPASS" == answers[-1].headers["X-Cache"]
    health = await (await fragile.get("/api/health", by=None)).json()
    assert ("degraded", "healthy", "unhealthy") == (
        health["status"], health["services"]["database"]["status"], health["services"]["cache"]["status"]
    )  # fmt: skip
    metrics = (await (await fragile.get("/api/metrics/cache", by="admin")).json())["metrics"]
    assert "disconnected" == metrics["connectionStatus"]
    assert metrics["errors"] > 0
    assert re_word(metrics["lastError"])


def re_word(text: object) -> bool:
    """Whether a reason is a short word, and no text of a driver."""
    return isinstance(text, str) and text.replace("-", "").isalpha() and len(text) < 20


async def test_a_database_that_is_away_is_a_503(api: Api, course: Course) -> None:
    """Whatever needs it is answered with a problem and when to come back; what is cached is still served."""
    url = api.services.settings.database_url
    risk, deck = course.classes["Risk"], course.decks["Analysis"]
    for path in ("/api/classes", f"/api/classes/{risk}"):
        assert 200 == (await api.get(path)).status
    name = url.rpartition("/")[2]
    admin_url = f"{url.rpartition('/')[0]}/postgres"
    run_sql(admin_url, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    run_statement(
        admin_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name
    )
    try:
        calls: list[tuple[str, str, Any]] = [
            ("GET", f"/api/decks/{deck}/flashcards", None), ("GET", "/api/stats", None),
            ("GET", "/api/bookmarks", None), ("GET", "/api/sessions", None),
            ("PUT", f"/api/progress/cards/{course.cards['r1']}", {"confidenceLevel": 3}),
            ("POST", "/api/sessions", {"deckIds": [str(deck)]}), ("PUT", f"/api/bookmarks/{course.cards['r1']}", None),
            ("POST", "/api/auth/login", {"email": "a@example.com", "password": "x"}),
            ("POST", "/api/auth/refresh", {"refreshToken": "x"}),
        ]  # fmt: skip
        with structlog.testing.capture_logs() as events:
            for method, path, body in calls:
                response = await api.request(method, path, json=body)
                text = await response.text()
                assert (path, 503) == (path, response.status), text
                assert ("application/problem+json", "no-store") == (
                    response.content_type, response.headers["Cache-Control"]
                )  # fmt: skip
                assert int(response.headers["Retry-After"]) >= 1
                assert [] == [word for word in DRIVER_WORDS if word.lower() in text.lower()]
        assert len(calls) <= len([event for event in events if event["event"] == "http.unavailable"])
        for path in ("/api/classes", f"/api/classes/{risk}"):
            response = await api.get(path)
            assert (200, "HIT") == (response.status, response.headers["X-Cache"])
        health = await api.get("/api/health", by=None)
        assert (503, "unhealthy") == (health.status, (await health.json())["status"])
        assert 200 == (await api.get("/livez", by=None)).status
        ready = await api.get("/readyz", by=None)
        assert (503, {"status": "unready", "reason": "database"}) == (ready.status, await ready.json())
    finally:
        run_sql(admin_url, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    async def serves() -> bool:
        return (await api.get("/api/stats")).status == 200

    await wait_until(serves, "the database is found again")

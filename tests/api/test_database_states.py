"""What clients and operators see of a database that is there and yet can't do everything."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from structlog.testing import capture_logs

from server.cli.migrations import migrate
from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi, run_statement
from tests.conftest import run_sql
from tests.support.waiting import wait_until

DRIVER_WORDS = ("psycopg", "relation", "column", "cannot execute", "space left", "bookmarks")
# What a writer may want: each needs the database to take writes.
WRITES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "/api/progress/cards/{card}", {"confidenceLevel": 3}),
    ("POST", "/api/sessions", {"deckIds": ["{deck}"]}),
    ("PUT", "/api/bookmarks/{card}", None),
    ("POST", "/api/auth/register", {"email": "new@example.com", "password": "a long password"}),
)


def filled(value: Any, course: Course) -> Any:
    """A path or a body with the ids of the course."""
    places = {"{card}": str(course.cards["r1"]), "{deck}": str(course.decks["Analysis"])}
    if isinstance(value, str):
        for place, id_ in places.items():
            value = value.replace(place, id_)
        return value
    if isinstance(value, list):
        return [filled(one, course) for one in value]
    return {name: filled(one, course) for name, one in value.items()} if isinstance(value, dict) else value


async def problem(response: ClientResponse, code: str) -> None:
    """The answer is a 503 with this code, says when to come back, and shows nothing of the driver."""
    text = await response.text()
    assert (503, "application/problem+json") == (response.status, response.content_type), text
    assert int(response.headers["Retry-After"]) >= 1
    assert code == (await response.json())["code"]
    assert [] == [word for word in DRIVER_WORDS if word in text.lower()]


async def health(api: Api) -> tuple[int, str, str, str | None]:
    """The status code of /api/health, the overall status, and the database's with its error.

    That the database did not answer in time is a state of the machine, and is asked again.
    """
    seen: list[tuple[int, str, str, str | None]] = []

    async def is_in_time() -> bool:
        response = await api.get("/api/health", by=None)
        body = await response.json()
        database = body["services"]["database"]
        seen.append((response.status, body["status"], database["status"], database["error"]))
        return bool(database["error"] != "timeout")

    await wait_until(is_in_time, "the database answers in time")
    return seen[-1]


def answers(api: Api, path: str, status: int) -> Callable[[], Awaitable[bool]]:
    """Whether a path answers with a status by now."""

    async def ask() -> bool:
        return (await api.get(path)).status == status

    return ask


async def unready(api: Api) -> dict[str, str] | None:
    """Why the service is not ready; None if it is."""
    response = await api.get("/readyz", by=None)
    if response.status == 200:
        return None
    assert (503, "no-store") == (response.status, response.headers["Cache-Control"])
    assert int(response.headers["Retry-After"]) >= 1
    reason: dict[str, str] = await response.json()
    return reason


@pytest.fixture
def older_schema(tmp_path: Path) -> Path:
    """The migrations of a release before: all but the last one."""
    folder = Path(__file__).parents[2] / "sql" / "migrations"
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    max(tmp_path.glob("*.sql")).unlink()
    return tmp_path


async def test_deploy_01_an_older_schema_is_not_ready(
    settings: Settings, start_api: StartApi, course: Course
) -> None:
    """A missing migration: unready, every request a 503, one line in the log; ready once it has been applied."""
    url = settings.database_url
    ((last,),) = run_statement(
        url,
        "DELETE FROM schema_migrations WHERE name = (SELECT max(name) FROM schema_migrations) RETURNING name",
    )
    with capture_logs() as logs:
        api = await start_api(settings)
        for _ in range(2):
            assert {"status": "unready", "reason": "schema"} == await unready(api)
            assert (503, "unhealthy", "unhealthy", "schema") == await health(api)
            await problem(await api.get("/api/stats"), "schema")
            for method, path, body in WRITES:
                answer = await api.request(method, filled(path, course), json=filled(body, course))
                await problem(answer, "schema")
        run_statement(url, "INSERT INTO schema_migrations (name, sha256) VALUES (%s, '')", last)
        await wait_until(answers(api, "/readyz", 200), "it is ready without a restart")
        assert (200, "healthy", "healthy", None) == await health(api)
        assert 200 == (await api.get("/api/stats")).status
    events = [entry for entry in logs if entry["event"].startswith("database.schema")]
    assert ["database.schema_outdated", "database.schema_current"] == [entry["event"] for entry in events]
    assert ("error", [last]) == (events[0]["log_level"], events[0]["missing"])
    assert "python -m server migrate" in events[0]["detail"]


async def test_deploy_01_a_database_without_a_schema(
    settings: Settings, start_api: StartApi, course: Course, older_schema: Path
) -> None:
    """An empty database, then an older schema, then ours: the service becomes ready by itself, and only at the end."""
    url = settings.database_url
    del course
    run_sql(url, "DROP SCHEMA public CASCADE")
    run_sql(url, "CREATE SCHEMA public")
    api = await start_api(settings)
    assert {"status": "unready", "reason": "schema"} == await unready(api)
    migrate(url, older_schema)
    assert {"status": "unready", "reason": "schema"} == await unready(api)
    migrate(url)
    await wait_until(answers(api, "/readyz", 200), "it is ready without a restart")
    registered = await api.post(
        "/api/auth/register", by=None, json={"email": "first@example.com", "password": "a long password"}
    )
    assert 201 == registered.status


async def test_deploy_01_a_newer_schema_is_fine(settings: Settings, start_api: StartApi) -> None:
    """A migration of the release after this one: the service is ready, as in a rollback."""
    run_statement(
        settings.database_url, "INSERT INTO schema_migrations (name, sha256) VALUES ('9999_later.sql', '')"
    )
    api = await start_api(settings)
    assert await unready(api) is None
    assert 200 == (await api.get("/api/stats")).status


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE bookmarks RENAME TO elsewhere",
        "ALTER TABLE bookmarks RENAME COLUMN created_at TO later",
    ],
)
async def test_deploy_01_a_missing_table_or_column_is_a_503(api: Api, change: str) -> None:
    """What vanishes at run time is the same kind: 503 for the client, the query's name for the operator."""
    run_statement(api.services.settings.database_url, change)
    with capture_logs() as logs:
        await problem(await api.get("/api/bookmarks"), "schema")
    (failure,) = [entry for entry in logs if entry["event"] == "http.unavailable"]
    assert "list_bookmarks" in failure["reason"]
    assert 200 == (await api.get("/api/stats")).status


async def test_deploy_01_a_schema_that_vanishes_is_noticed(api: Api) -> None:
    """An older backup is restored under the running service: it is not ready until it has been migrated."""
    url = api.services.settings.database_url
    run_statement(url, "ALTER TABLE bookmarks RENAME TO elsewhere")
    run_statement(url, "DELETE FROM schema_migrations WHERE name > '0005'")
    await problem(await api.get("/api/bookmarks"), "schema")

    async def is_unready() -> bool:
        return await unready(api) == {"status": "unready", "reason": "schema"}

    await wait_until(is_unready, "it is not ready")


async def test_deploy_01_a_database_that_is_down_at_the_start(
    settings: Settings, start_api: StartApi
) -> None:
    """It is not ready for the database; when that is back, the schema is looked at first."""
    name = settings.database_url.rpartition("/")[2]
    admin_url = f"{settings.database_url.rpartition('/')[0]}/postgres"
    run_sql(admin_url, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        api = await start_api(settings)
        assert {"status": "unready", "reason": "database"} == await unready(api)
        await problem(await api.get("/api/stats"), "unavailable")
    finally:
        run_sql(admin_url, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    await wait_until(answers(api, "/readyz", 200), "it is ready without a restart")
    assert 200 == (await api.get("/api/stats")).status


def read_only(url: str, *, on: bool) -> None:
    """Make a database read-only for its new sessions, and end the present ones, as a failover does."""
    name = url.rpartition("/")[2]
    admin_url = f"{url.rpartition('/')[0]}/postgres"
    run_sql(admin_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = {"on" if on else "off"}')
    if on:
        run_statement(
            admin_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name
        )


async def test_deploy_08_a_read_only_database_is_degraded(api: Api, course: Course) -> None:
    """Reading goes on, writing is refused at once with a code of its own, and both work again afterwards."""
    url = api.services.settings.database_url
    read_only(url, on=True)

    async def is_degraded() -> bool:
        return await health(api) == (200, "degraded", "degraded", "read_only")

    await wait_until(is_degraded, "health says so")
    assert await unready(api) is None
    for path in ("/api/stats", "/api/classes", "/api/bookmarks"):
        assert 200 == (await api.get(path)).status
    for method, path, body in WRITES:
        await problem(await api.request(method, filled(path, course), json=filled(body, course)), "read_only")
    read_only(url, on=False)

    async def is_healthy() -> bool:
        return await health(api) == (200, "healthy", "healthy", None)

    await wait_until(is_healthy, "health says that it takes writes")

    async def writes() -> bool:
        rated = await api.put(f"/api/progress/cards/{course.cards['r1']}", json={"confidenceLevel": 3})
        return rated.status == 200

    await wait_until(writes, "it takes writes")


async def test_deploy_08_revoked_rights_are_read_only(settings: Settings, start_api: StartApi) -> None:
    """A platform that revokes INSERT from a database beyond its plan's size: degraded, and 503 for a write."""
    url = settings.database_url
    name = url.rpartition("/")[2]
    role = f"role_of_{name}"
    run_sql(url, f"CREATE ROLE {role} LOGIN PASSWORD 'role'")
    try:
        run_sql(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        place = url.rpartition("@")[2]
        api = await start_api(replace(settings, database_url=f"postgresql://{role}:role@{place}"))
        assert (200, "healthy", "healthy", None) == await health(api)
        run_sql(url, f"REVOKE INSERT ON ALL TABLES IN SCHEMA public FROM {role}")
        assert (200, "degraded", "degraded", "read_only") == await health(api)
        await problem(await api.request(*WRITES[-1][:2], json=WRITES[-1][2]), "read_only")
        run_sql(url, f"GRANT INSERT ON ALL TABLES IN SCHEMA public TO {role}")
        assert (200, "healthy", "healthy", None) == await health(api)
    finally:
        run_sql(url, f"DROP OWNED BY {role}")
        run_sql(url, f"DROP ROLE {role}")

"""Who may do what while the database can't be asked: refused, stalled (SIGSTOP) or with its pool exhausted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from server.api.routes import ROUTES
from server.cli.migrations import migrate
from server.development import EmbeddedServer, postgres_server
from server.domain.identity import callers
from server.domain.identity.tokens import Caller
from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi, run_statement
from tests.conftest import FAST_POSTGRES, replace_database, run_sql
from tests.stores.postgres.databases import ask
from tests.support.postgres_wire import PostgresWire, through
from tests.support.waiting import wait_until

# What happens to an administrator's account, as SQL on it.
FATES = {
    "unchanged": "SELECT 1 FROM users WHERE id = %s",
    "lowered": "UPDATE users SET role = 'user' WHERE id = %s",
    "deactivated": "UPDATE users SET deactivated_at = now() WHERE id = %s",
    "deleted": "DELETE FROM users WHERE id = %s",
}
# When the service looked at the account: never, before and after its fate (both longer ago than a check is worth), or
# a moment ago, but before its fate.
LOOKS = ("never", "before", "after", "a moment ago")


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A PostgreSQL that these tests may stop."""
    with postgres_server(tmp_path_factory.mktemp("postgres"), options=FAST_POSTGRES) as server:
        yield server


@pytest.fixture
def database_url(own_postgres: EmbeddedServer) -> Iterator[str]:
    """A migrated database on the server of these tests."""
    run_sql(own_postgres.url, "CREATE DATABASE unchecked")
    url = replace_database(own_postgres.url, "unchecked")
    migrate(url)
    yield url
    run_sql(own_postgres.url, "DROP DATABASE unchecked WITH (FORCE)")


@pytest.fixture
async def wire(own_postgres: EmbeddedServer) -> AsyncIterator[Wire]:
    """A TCP relay before the PostgreSQL."""
    async with contextlib.AsyncExitStack() as stack:
        wire = Wire(own_postgres, stack)
        await wire.connect()
        yield wire


class Wire:
    """A relay that can be taken away, and put back."""

    def __init__(self, server: EmbeddedServer, stack: contextlib.AsyncExitStack) -> None:
        self.server = server
        self.relay = PostgresWire(server.port)
        self._stack = stack

    async def connect(self) -> None:
        """Listen: at first on any port, later on the same again."""
        await self._stack.enter_async_context(self.relay.open(self.relay.port))

    async def disconnect(self) -> None:
        """Cut all connections, and refuse new ones."""
        await self._stack.aclose()


class Clock:
    """The monotonic clock of server.domain.identity.callers, which stands still until a test puts it forward."""

    def __init__(self) -> None:
        self.seconds = time.monotonic()

    def now(self) -> float:
        """The time in seconds."""
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock, in its place."""
    clock = Clock()
    monkeypatch.setattr(callers, "monotonic", clock.now)
    return clock


@pytest.fixture
def wired(settings: Settings, wire: Wire) -> Settings:
    """The settings of a service behind the wire: two connections, and a short deadline of a query."""
    return replace(
        settings,
        database_url=through(wire.relay, settings.database_url),
        database_pool_size=2,
        database_query_timeout_ms=1000,
    )


@contextlib.asynccontextmanager
async def refused(_api: Api, wire: Wire) -> AsyncIterator[None]:
    """Nobody listens where the database was."""
    await wire.disconnect()
    yield
    await wire.connect()


@contextlib.asynccontextmanager
async def stalled(_api: Api, wire: Wire) -> AsyncIterator[None]:
    """The server and all of its sessions stand still; the system goes on taking connections for it."""
    pids = [
        pid
        for (pid,) in ask(
            wire.server.url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'mastery'"
        )
    ]
    pids.append(wire.server.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def exhausted(api: Api, _wire: Wire) -> AsyncIterator[None]:
    """Others hold all connections."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(api.services.settings.database_pool_size):
            await stack.enter_async_context(api.services.database.transaction())
        yield


Outage = Callable[[Api, Wire], contextlib.AbstractAsyncContextManager[None]]
OUTAGES: dict[str, Outage] = {"refused": refused, "stalled": stalled, "exhausted": exhausted}


def make_admins(url: str, api: Api, kind: str) -> None:
    """An administrator for each fate, in `api.people` as "<fate> <kind>"."""
    for fate in FATES:
        name = f"{fate} {kind}"
        ((user_id,),) = run_statement(
            url,
            "INSERT INTO users (email, role) VALUES (%s, 'admin') RETURNING id::text",
            f"{name.replace(' ', '-')}@example.com",
        )
        api.people[name] = Caller(UUID(user_id), "admin")


def strike(url: str, api: Api, kind: str) -> None:
    """Let the fates of some administrators happen."""
    for fate, statement in FATES.items():
        run_statement(url, statement, str(api.people[f"{fate} {kind}"].user_id))


async def ask_in_turn(turn: asyncio.Semaphore, api: Api, method: str, path: str, **options: Any) -> int:
    """The status of an answer."""
    async with turn:
        return (await api.request(method, path, **options)).status


async def answers(turn: asyncio.Semaphore, api: Api, course: Course, by: str) -> dict[str, int]:
    """What somebody gets for a read that is cached, a write, and admin routes that need the database or not."""
    requests: dict[str, tuple[str, str, Any]] = {
        "read": ("GET", "/api/classes", None),
        "read for one": ("GET", f"/api/classes/{course.classes['Risk']}", None),
        "write": ("PUT", f"/api/bookmarks/{course.cards['r1']}", None),
        "admin write": ("POST", "/api/admin/classes", {"name": f"by {by}"}),
        "admin read": ("GET", "/api/admin/rate-limits/ip:192.0.2.1", None),
        "admin reset": ("DELETE", "/api/admin/rate-limits/ip:192.0.2.1", None),
        "metrics reset": ("POST", "/api/metrics/cache/reset", None),
        "cache metrics": ("GET", "/api/metrics/cache", None),
        "dashboard": ("GET", "/api/dashboard", None),
    }
    statuses = {}
    for name, (method, path, body) in requests.items():
        statuses[name] = asyncio.create_task(ask_in_turn(turn, api, method, path, by=by, json=body))
    return {name: await status for name, status in statuses.items()}


NEEDS_NO_DATABASE = ("admin read", "metrics reset", "cache metrics", "dashboard")
REQUESTS = ("read", "read for one", "write", "admin write", "admin reset", *NEEDS_NO_DATABASE)


def expected_during(fate: str, look: str) -> dict[str, int]:
    """What `answers` has to find while the database can't be asked; without "read for one" of those who may read."""
    if look == "never":
        return dict.fromkeys(REQUESTS, 503)
    if look == "after" and fate in {"deactivated", "deleted"}:
        return dict.fromkeys(REQUESTS, 401)
    if look == "a moment ago":
        return dict.fromkeys(REQUESTS, 503) | dict.fromkeys(("read", *NEEDS_NO_DATABASE), 200)
    return dict.fromkeys(REQUESTS, 503) | {"read": 200}


def expected_afterwards(fate: str) -> dict[str, int]:
    """What `answers` has to find once the database has been asked."""
    if fate == "unchanged":
        return dict.fromkeys(REQUESTS, 200) | {"admin write": 201, "admin reset": 204, "write": 201}
    if fate == "lowered":
        return dict.fromkeys(REQUESTS, 403) | {"read": 200, "read for one": 200, "write": 201}
    return dict.fromkeys(REQUESTS, 401)


async def found(
    api: Api, course: Course, *, looks: tuple[str, ...], at_once: int
) -> dict[tuple[str, str], dict[str, int]]:
    """`answers` for every fate and look, so many requests at a time."""
    cases = [(fate, look) for fate in FATES for look in looks]
    turn = asyncio.Semaphore(at_once)
    everything = await asyncio.gather(*(answers(turn, api, course, f"{fate} {look}") for fate, look in cases))
    return dict(zip(cases, everything, strict=True))


def differences(
    found: dict[tuple[str, str], dict[str, int]], expected: Callable[[str, str], dict[str, int]]
) -> dict[str, tuple[int, int]]:
    """Where what was found is not what was expected: (expected, found) by case and request."""
    return {
        f"{fate}, looked at {look}: {request}": (status, statuses[request])
        for (fate, look), statuses in found.items()
        for request, status in expected(fate, look).items()
        if status != statuses[request]
    }


def but_for_overlays(fate: str, look: str) -> dict[str, int]:
    """What is expected, without the page that has a part for each user: that may be cached or not."""
    expected = expected_during(fate, look)
    if expected["read"] == 200:
        del expected["read for one"]
    return expected


@pytest.mark.parametrize("outage", OUTAGES)
async def test_share_11_only_checked_rights_count(
    wired: Settings,
    wire: Wire,
    start_api: StartApi,
    course: Course,
    database_url: str,
    clock: Clock,
    outage: str,
) -> None:
    """Each fate of an account, each look at it, and each kind of route: as the role last checked, or not at all.

    From the moment the database is back it is as the database says, and nothing of an outage was remembered.
    """
    api = await start_api(wired)
    for look in LOOKS:
        make_admins(database_url, api, look)

    async def look_at(look: str) -> set[int]:
        return {(await api.get("/api/classes", by=f"{fate} {look}")).status for fate in FATES}

    assert {200} == await look_at("before")
    for look in ("never", "before", "after"):
        strike(database_url, api, look)
    assert {200, 401} == await look_at("after")
    clock.seconds += callers.RECHECK_SECONDS + 1
    assert {200} == await look_at("a moment ago")
    strike(database_url, api, "a moment ago")

    async with OUTAGES[outage](api, wire):
        assert {} == differences(await found(api, course, looks=LOOKS, at_once=50), but_for_overlays)

    clock.seconds += callers.RECHECK_SECONDS + 1
    await wait_until(lambda: serves(api), "the database is found again")
    assert {} == differences(
        await found(api, course, looks=LOOKS, at_once=1), lambda fate, _: expected_afterwards(fate)
    )
    assert {("by unchanged " + look,) for look in LOOKS} == set(
        run_statement(database_url, "SELECT name FROM classes WHERE name LIKE 'by %%'")
    )


async def serves(api: Api) -> bool:
    """Whether the database answers the service."""
    return (await api.get("/readyz", by=None)).status == 200


@pytest.mark.parametrize("outage", OUTAGES)
async def test_share_11_nobody_is_believed_after_a_restart(
    wired: Settings, wire: Wire, start_api: StartApi, course: Course, database_url: str, outage: str
) -> None:
    """A process that has never seen the database knows nobody, whatever another one knew; and it remembers no claim."""
    before = await start_api(wired)
    make_admins(database_url, before, "never")
    for fate in FATES:
        assert 200 == (await before.get("/api/classes", by=f"{fate} never")).status
    strike(database_url, before, "never")
    await before.client.close()

    api = await start_api(wired)
    async with OUTAGES[outage](api, wire):
        assert {} == differences(await found(api, course, looks=("never",), at_once=50), expected_during)
    await wait_until(lambda: serves(api), "the database is found again")
    assert {} == differences(
        await found(api, course, looks=("never",), at_once=1), lambda fate, _: expected_afterwards(fate)
    )


def test_share_11_what_a_reader_may_do_is_said_by_the_route() -> None:
    """The routes that are open to a caller that can't be checked are read here, each by name; a new one is not."""
    assert {
        "/api/auth/me", "/api/profile", "/api/classes", "/api/classes/{classId}", "/api/classes/{classId}/study",
        "/api/decks/{deckId}/flashcards", "/api/progress/class/{classId}", "/api/progress/cards/{flashcardId}",
        "/api/progress", "/api/study/due", "/api/stats", "/api/bookmarks", "/api/sessions",
    } == {route.path for route in ROUTES if route.audience == "reader"}  # fmt: skip
    assert {"GET"} == {route.method for route in ROUTES if route.audience == "reader"}

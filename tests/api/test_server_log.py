"""PostgreSQL logs the text of a statement that fails, and the driver puts values into it: none of them is private."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest

from server.cli.migrations import migrate
from server.development import postgres_server
from server.domain.identity.callers import Callers
from server.domain.identity.external import ExternalIdentity
from server.settings import Settings
from server.stores.postgres.queries import load_queries
from tests.api.conftest import Api, Course, StartApi
from tests.conftest import FAST_POSTGRES, run_sql
from tests.support.waiting import wait_until

PASSWORD = "a long password"
# Each of them would betray somebody; the last one is how every stored hash begins.
PRIVATE = ("ada@example.com", "straße", "ada lovelace", PASSWORD, "argon2")
PERSON = {"email": "Ada@Example.com", "password": PASSWORD, "name": "Ada Lovelace"}


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of one test's own, and the file it logs to."""

    url: str
    log: Path

    def logged(self) -> str:
        """All that it has logged, in lower case."""
        return self.log.read_text(errors="replace").lower()

    def errors(self) -> list[str]:
        """The lines that say that something failed."""
        return [line for line in self.logged().splitlines() if "error:" in line or "fatal:" in line]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A migrated database on a server of its own."""
    folder = tmp_path / "postgres"
    with postgres_server(folder, options=FAST_POSTGRES) as running:
        migrate(running.url)
        yield Server(running.url, folder / "postgres.log")


@pytest.fixture
def database_url(server: Server) -> str:
    """Where `people` and `course` go."""
    return server.url


@pytest.fixture
async def registered(api: Api) -> Api:
    """The service with the account of PERSON."""
    assert 201 == (await api.post("/api/auth/register", by=None, json=PERSON)).status
    return api


async def test_deploy_15_what_is_expected_fails_nowhere(
    server: Server, registered: Api, course: Course
) -> None:
    """Conflicts, strangers and things that are not there are answered without an error in the server's log."""
    api, card = registered, course.cards["r1"]
    before = server.errors()  # of its start
    stranger = {"email": "ada@example.com", "password": "another password"}
    login = {"email": PERSON["email"], "password": PASSWORD}
    tokens = await (await api.post("/api/auth/login", by=None, json=login)).json()
    first = {"refreshToken": tokens["refreshToken"]}
    statuses = [
        (await api.request(method, path, by=by, json=body)).status
        for method, path, by, body in (
            ("POST", "/api/auth/register", None, PERSON),
            ("POST", "/api/auth/register", None, {**PERSON, "email": "STRAẞE İ@example.com"}),
            ("POST", "/api/auth/login", None, stranger),
            ("POST", "/api/auth/login", None, {**stranger, "email": "nobody@example.com"}),
            ("POST", "/api/auth/refresh", None, first),
            ("POST", "/api/auth/refresh", None, {"refreshToken": "unknown"}),
            ("PUT", f"/api/progress/cards/{uuid4()}", "user", {"confidenceLevel": 3}),
            ("PUT", f"/api/bookmarks/{uuid4()}", "user", None),
            ("PUT", f"/api/bookmarks/{card}", "user", None),
            ("PUT", f"/api/bookmarks/{card}", "user", None),
            ("POST", "/api/sessions", "user", {"deckIds": [str(uuid4())]}),
            ("GET", f"/api/classes/{uuid4()}", "user", None),
            ("POST", "/api/admin/decks", "admin", {"classId": str(uuid4()), "name": "Deck"}),
        )
    ]
    assert [409, 401, 401, 401] == [statuses[0], statuses[2], statuses[3], statuses[5]]
    callers = Callers(api.services.database, api.tokens, None)
    for subject in ("one", "one", "two"):
        identity = ExternalIdentity(
            issuer="https://issuer.example",
            subject=subject,
            email="Ada@example.com",
            name="Ada Lovelace",
            expires_at=time.time() + 3600,
        )
        both = await asyncio.gather(callers._find_external(identity), callers._find_external(identity))
        assert both[0] == both[1]
    assert before == server.errors()


STALLS = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"
REFUSES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON users FOR EACH STATEMENT EXECUTE FUNCTION refuse()
"""
READ_ONLY = "ALTER DATABASE mastery SET default_transaction_read_only = on"


async def send_everything(api: Api) -> list[int]:
    """Register, log in and meet somebody from outside: all that carries private values; the statuses."""
    person = {**PERSON, "email": "Ada@example.com"}
    statuses = [
        (await api.post(path, by=None, json=body)).status
        for path, body in (
            ("/api/auth/register", person),
            ("/api/auth/login", {"email": person["email"], "password": PASSWORD}),
        )
    ]
    identity = ExternalIdentity(
        issuer="https://issuer.example",
        subject="one",
        email="ada@example.com",
        name="Ada Lovelace",
        expires_at=time.time() + 3600,
    )
    with contextlib.suppress(Exception):
        await Callers(api.services.database, api.tokens, None)._create_external_user(identity)
    return statuses


@pytest.mark.parametrize("change", [REFUSES, READ_ONLY, "ALTER TABLE users RENAME TO elsewhere"])
async def test_deploy_15_what_the_server_refuses_is_logged_without_values(
    server: Server, settings: Settings, start_api: StartApi, change: str
) -> None:
    """A full disk, a standby, a missing table: the statements are logged, and nobody is in them."""
    api = await start_api(settings)
    run_sql(server.url, change)
    api.services.database.pool.renew()
    before = len(server.errors())
    assert 503 == (await send_everything(api))[0]
    assert len(server.errors()) > before
    assert "insert into users" in server.logged()
    assert [] == [value for value in PRIVATE if value in server.logged()]


@pytest.fixture
async def stalled(server: Server) -> AsyncIterator[None]:
    """Somebody holds the accounts' table."""
    with contextlib.closing(psycopg2.connect(server.url)) as connection, connection.cursor() as cursor:
        cursor.execute(STALLS)
        yield


@pytest.mark.parametrize(
    "options", ["", "?options=-c%20statement_timeout%3D100", "?options=-c%20lock_timeout%3D100"]
)
async def test_deploy_15_what_takes_too_long_is_logged_without_values(
    server: Server, settings: Settings, start_api: StartApi, stalled: None, options: str
) -> None:
    """A statement that its client gave up, or the server ended by one of its timeouts, names nobody either."""
    del stalled
    url = f"{settings.database_url}{options}"
    api = await start_api(
        replace(settings, database_url=url, database_query_timeout_ms=1000 if options else 100)
    )
    assert [503, 503] == await send_everything(api)
    await wait_until(lambda: "insert into users" in server.logged(), "the server has logged it")
    assert [] == [value for value in PRIVATE if value in server.logged()]


def test_deploy_15_every_query_says_what_is_private() -> None:
    """No query takes an address, a hash of a password or a person's name in its own text."""
    suspicious = ("email", "spelling", "password")
    for query in load_queries().values():
        about_people = {name for name in query.parameters if any(word in name for word in suspicious)}
        if "INTO users" in query.sql or "UPDATE users" in query.sql:
            about_people |= query.parameters & {"name", "known_hash"}
        assert about_people <= query.private, query.name

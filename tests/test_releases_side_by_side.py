"""The release before and the present one side by side, on one database and one Redis, as in a rolling deployment."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from server.cli.counters import check_counters
from server.cli.migration_files import MIGRATIONS_FOLDER
from server.cli.migrations import migrate
from server.cli.web import is_ready
from server.development import EmbeddedServer, free_port
from server.development.processes import child_process, wait_until_ready
from server.ratelimit.policies import STATE_FORMAT
from server.settings import ROOT
from tests.conftest import replace_database, run_sql
from tests.stores.postgres.databases import ask

# What stands for the release before as long as there is no tag.
BEFORE_THE_FIRST_TAG = "48376f2"
PASSWORD = "a password of the tests"


@dataclass(frozen=True)
class Release:
    """A running release: where it answers."""

    name: str
    port: int

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str = "", **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, JSON and headers of an answer."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            given["Authorization"] = f"Bearer {token}"
        if body is not None:
            given["Content-Type"] = "application/json"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), given)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else {}, dict(answer.getheaders())


@dataclass(frozen=True)
class Student:
    """A user of the service, and the cards to study."""

    token: str
    cards: list[str]
    deck_id: str


@pytest.fixture(scope="module")
def older_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the newest tagged release; without a tag, those of a commit that is old enough."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git history here to take the release before from")
    tag = _git("describe", "--tags", "--abbrev=0", "HEAD").stdout.decode().strip()
    reference = tag or BEFORE_THE_FIRST_TAG
    archive = _git("archive", "--format=tar", reference)
    if archive.returncode != 0:
        pytest.skip(f"no tag, and {reference} is not in this clone's history: nothing to compare with")
    folder = tmp_path_factory.mktemp("older")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)


@dataclass
class Deployment:
    """One database and one Redis, and the releases that are started on them."""

    environment: dict[str, str]
    database_url: str

    @contextlib.contextmanager
    def running(self, folder: Path, name: str) -> Iterator[Release]:
        """A release from its folder, until the block ends."""
        port = free_port()
        environment = self.environment | {
            "PORT": str(port),
            "RATE_LIMITS_FILE": f"{folder}/config/ratelimits.toml",
        }
        command = ["env", "-C", str(folder), sys.executable, "-m", "server", "serve"]
        with child_process(command, environment=environment) as process:
            assert wait_until_ready(process, lambda: is_ready("127.0.0.1", port), seconds=60), name
            yield Release(name, port)

    def command(self, folder: Path, *arguments: str) -> None:
        """A command of a release, which succeeds."""
        done = subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            cwd=folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert 0 == done.returncode, done.stderr


@pytest.fixture
def deployment(shared_postgres: EmbeddedServer, own_redis: EmbeddedServer) -> Iterator[Deployment]:
    """An empty database and an empty Redis."""
    name = f"beside_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name}")
    url = replace_database(shared_postgres.url, name)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
        "DATABASE_URL": url, "REDIS_URL": own_redis.url, "SECRET_KEY": "k" * 32, "HOST": "127.0.0.1",
        "TRUSTED_PROXIES": "1",
    }  # fmt: skip
    yield Deployment(environment, url)
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.long
def test_deploy_13_releases_side_by_side_across_every_migration(
    older_release: Path, deployment: Deployment, own_redis: EmbeddedServer, tmp_path: Path
) -> None:
    """Forth: the older release serves through each new migration, then beside the present one; and back, alone."""
    is_one_format = STATE_FORMAT == _state_format(older_release)
    deployment.command(older_release, "migrate")
    deployment.command(older_release, "import", "config/sample-course")
    with deployment.running(older_release, "older") as older:
        veteran = _register(older)
        _study(veteran, [older] * 4)
        applied = {name for (name,) in ask(deployment.database_url, "SELECT name FROM schema_migrations")}
        for file in sorted(MIGRATIONS_FOLDER.rglob("*.sql"), key=lambda file: file.name):
            target = tmp_path / file.relative_to(MIGRATIONS_FOLDER)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)
            if file.name not in applied:
                is_baseline = file.read_text().startswith("-- baseline")
                assert ([] if is_baseline else [file.name]) == migrate(deployment.database_url, tmp_path)
                _study(_register(older), [older] * 4)
        with deployment.running(ROOT, "present") as present:
            for turns in ([present, older, older, present], [older, present, present, older]):
                for registered_at in (older, present):
                    _study(_register(registered_at), turns)
            for one, other in ((older, present), (present, older)):
                _repeat_a_write(_register(one), one, other)
                _share_a_session(_register(one), one, other)
                _share_limits(_register(one), one, other, is_shared=is_one_format)
            _see_each_others_writes(_register(older), older, present)
            assert 4 == _streak(present, veteran)
        newcomer = _register(older)
        _study(newcomer, [older] * 4)
        assert 4 == _streak(older, veteran)
    assert [] == check_counters(deployment.database_url).examples
    with closing(redis.Redis.from_url(own_redis.url)) as client:
        assert client.dbsize() > 0, "both have used the Redis"


def _state_format(folder: Path) -> int:
    """The format of what a release counts in Redis; before it had a number it was the first."""
    found = re.search(
        r"^STATE_FORMAT = (\d+)$", (folder / "server/ratelimit/policies.py").read_text(), re.MULTILINE
    )
    return int(found[1]) if found else 1


def _register(release: Release) -> Student:
    address = f"192.0.2.{secrets.randbelow(250) + 1}"  # registrations are limited by address
    email = f"{secrets.token_hex(8)}@example.com"
    status, body, _ = release.ask(
        "POST", "/api/auth/register", {"email": email, "password": PASSWORD}, X_Forwarded_For=address
    )
    assert 201 == status, body
    token = body["accessToken"]
    _, classes, _ = release.ask("GET", "/api/classes", token=token)
    _, one, _ = release.ask("GET", f"/api/classes/{classes['classes'][0]['id']}", token=token)
    deck_id = one["decks"][0]["id"]
    _, deck, _ = release.ask("GET", f"/api/decks/{deck_id}/flashcards", token=token)
    return Student(token, [card["id"] for card in deck["flashcards"]], deck_id)


def _study(student: Student, releases: list[Release]) -> None:
    """A card a day, up to today, each day with a release: each release then says that the streak is as long."""
    for ago, release in zip(range(len(releases) - 1, -1, -1), releases, strict=True):
        rating = {
            "flashcardId": student.cards[ago],
            "confidenceLevel": 4,
            "ratedAt": (datetime.now(UTC) - timedelta(days=ago)).isoformat(),
        }
        status, body, _ = release.ask(
            "POST", "/api/progress/cards", {"ratings": [rating]}, token=student.token
        )
        assert 200 == status, (release, body)
    names = [release.name for release in releases]
    assert dict.fromkeys(names, len(releases)) == {one.name: _streak(one, student) for one in releases}


def _streak(release: Release, student: Student) -> int:
    status, body, _ = release.ask("GET", "/api/stats", token=student.token)
    assert 200 == status, body
    return int(body["studyStreakDays"])


def _repeat_a_write(student: Student, first: Release, second: Release) -> None:
    """The same Idempotency-Key at another release gives the first answer, and counts once."""
    path, rating = f"/api/progress/cards/{student.cards[0]}", {"confidenceLevel": 5}
    answers = [
        release.ask("PUT", path, rating, token=student.token, Idempotency_Key="a key")
        for release in (first, second, first)
    ]
    assert [(200, answers[0][1])] * 3 == [(status, body) for status, body, _ in answers]
    assert 1 == answers[0][1]["timesSeen"]
    status, _, _ = second.ask(
        "PUT", path, {"confidenceLevel": 1}, token=student.token, Idempotency_Key="a key"
    )
    assert status in {409, 422}


def _share_a_session(student: Student, first: Release, second: Release) -> None:
    """Started at one, rated at both, ended at either: one session with the figures of all its ratings."""
    status, session, _ = first.ask(
        "POST", "/api/sessions", {"deckIds": [student.deck_id]}, token=student.token
    )
    assert 201 == status, session
    for number, release in enumerate((first, second)):
        rating = {"confidenceLevel": 3, "sessionId": session["sessionId"]}
        status, body, _ = release.ask(
            "PUT", f"/api/progress/cards/{student.cards[number]}", rating, token=student.token
        )
        assert 200 == status, body
    ends = [
        release.ask("POST", f"/api/sessions/{session['sessionId']}/end", token=student.token)
        for release in (second, first)
    ]
    assert ends[0][:2] == ends[1][:2]
    assert 2 == ends[0][1]["session"]["cardsStudied"]


def _share_limits(student: Student, first: Release, second: Release, *, is_shared: bool) -> None:
    """What is left of a limit at one release is what the other goes on from; with another format each has its own."""
    left = []
    for release in (first, second, first, second):
        status, _, headers = release.ask("GET", "/api/stats", token=student.token)
        assert 200 == status
        left.append(int(headers["X-RateLimit-Remaining"]))
    expected = [0, 1, 2, 3] if is_shared else [0, left[0] - left[1], 1, left[0] - left[1] + 1]
    assert expected == [left[0] - one for one in left]


def _see_each_others_writes(student: Student, first: Release, second: Release) -> None:
    """What is rated at one release is what a reader of the other is shown, whichever had it in the cache before."""
    for number, (writer, reader) in enumerate(((first, second), (second, first)), start=1):
        path = f"/api/progress/cards/{student.cards[0]}"
        reader.ask("GET", path, token=student.token)
        status, written, _ = writer.ask("PUT", path, {"confidenceLevel": number}, token=student.token)
        assert 200 == status
        _, read, _ = reader.ask("GET", path, token=student.token)
        assert written == read
        assert number == read["timesSeen"]

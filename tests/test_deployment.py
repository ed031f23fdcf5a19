"""The Procfile on a platform: release, then web with two workers, the main job, and a restart under load."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import secrets
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.cli.web import is_ready
from server.development import EmbeddedServer, free_port
from tests.conftest import replace_database
from tests.support.checkout import ROOT, Checkout, Service
from tests.support.waiting import eventually

HOST = "127.0.0.1"
PASSWORD = "correct horse battery"
ADMIN = "first-admin@example.com"


@dataclass(frozen=True, slots=True)
class Platform:
    """A checkout with the settings that a platform gives it."""

    checkout: Checkout
    variables: dict[str, str]

    def honcho(self, *arguments: str, port: int) -> Service:
        """Start processes of the Procfile as a platform does: by name, through a shell, output collected."""
        path = f"{self.checkout.folder / '.venv' / 'bin'}:{os.environ['PATH']}"
        variables = self.variables | {"PATH": path, "PYTHONUNBUFFERED": "1"}
        command = (
            self.checkout.python,
            "-m",
            "honcho",
            "--no-colour",
            "start",
            "--port",
            str(port),
            *arguments,
        )
        return self.checkout.start(*command, **variables)


@pytest.fixture(scope="module")
def platform(
    shared_postgres: EmbeddedServer,
    shared_redis: EmbeddedServer,
    administer: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    """A database and a Redis that were added to the application, migrated by the release phase and filled."""
    name = f"platform_{secrets.token_hex(6)}"
    administer(f"CREATE DATABASE {name}")
    url = replace_database(shared_postgres.url, name)
    variables = {
        "DATABASE_URL": url.replace("postgresql://", "postgres://"),  # as platforms write it
        "REDIS_URL": shared_redis.url,
        "SECRET_KEY": secrets.token_hex(32),
        "HOST": HOST,
        "WEB_CONCURRENCY": "2",
    }
    platform = Platform(Checkout.copy(tmp_path_factory.mktemp("platform") / "app"), variables)
    release = platform.honcho("release", port=free_port())
    assert 0 == release.process.wait(60), release.output
    assert '"migration":"0016_identity.sql"' in release.output
    imported = platform.checkout.server("import", "config/sample-course", **variables)
    assert 0 == imported.returncode, imported.stderr
    create = 'echo "$1" | "$0" -m server users create "$2" --role admin --password-stdin'
    made = platform.checkout.run("sh", "-c", create, platform.checkout.python, PASSWORD, ADMIN, **variables)
    assert 0 == made.returncode, made.stderr  # nobody becomes an admin by registering
    yield platform
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def web_process(platform: Platform) -> Iterator[tuple[Service, int]]:
    """The web process of the Procfile, ready, and its port."""
    port = free_port()
    service = platform.honcho("web", port=port)
    try:
        eventually(lambda: is_ready(HOST, port) or service.process.poll() is not None, "readiness")
        assert service.process.poll() is None, service.output
        eventually(lambda: 2 == service.output.count('"service.started"'), "both workers")
        yield service, port
    finally:
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(60)
    eventually(lambda: not platform.checkout.processes(), "the end of every process")


@pytest.fixture
def web(platform: Platform) -> Iterator[tuple[Service, int]]:
    """The web process of the Procfile, ready, and its port."""
    with web_process(platform) as web:
        yield web


@dataclass(slots=True)
class Client:
    """Somebody with a connection that is kept open."""

    port: int
    token: str | None = None
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection(HOST, self.port, timeout=60)

    def ask(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
        """Send a request; its answer as JSON, which must come with a status."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self.connection.getresponse()
        answer = response.read()
        assert status == response.status, answer
        return json.loads(answer)

    def get(self, path: str) -> Any:
        """Ask once, by a connection of its own."""
        with contextlib.closing(self.connection):
            return self.ask("GET", path)

    def register(self) -> dict[str, Any]:
        """Become a new user."""
        body = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
        answer: dict[str, Any] = self.ask("POST", "/api/auth/register", body, status=201)
        self.token = answer["accessToken"]
        return answer


def test_the_main_job(web: tuple[Service, int]) -> None:
    """Register, choose a class, study, rate, see the progress; the admin sees it too, whichever worker answers."""
    _, port = web
    student = Client(port)
    with contextlib.closing(student.connection):
        user = student.register()["user"]
        chosen = student.ask("GET", "/api/classes")["classes"][0]
        class_ = student.ask("GET", f"/api/classes/{chosen['id']}")
        assert chosen["cardCount"] == sum(deck["cardCount"] for deck in class_["decks"])
        cards = student.ask("GET", f"/api/classes/{chosen['id']}/study?mode=progressive")["flashcards"]
        session = student.ask("POST", "/api/sessions", {"deckIds": [class_["decks"][0]["id"]]}, status=201)
        rating = {"confidenceLevel": 5, "sessionId": session["sessionId"]}
        student.ask("PUT", f"/api/progress/cards/{cards[0]['id']}", rating)
    for _ in range(10):  # new connections go to both workers
        progress = Client(port, student.token).get(f"/api/progress/class/{chosen['id']}")
        assert (1, 1) == (progress["studiedCards"], progress["masteredCards"])

    admin = Client(port)
    with contextlib.closing(admin.connection):
        answer = admin.ask("POST", "/api/auth/login", {"email": ADMIN, "password": PASSWORD})
    users = Client(port, answer["accessToken"]).get("/api/admin/analytics/users?sort=studied")["users"]
    found = next(row for row in users if row["id"] == user["id"])
    assert (1, 1) == (found["totalCardsStudied"], found["masteryBreakdown"]["mastered"])


@pytest.fixture(scope="module")
def stopped(platform: Platform) -> Iterator[tuple[Service, list[str]]]:
    """A web process that the platform has stopped under load, and the requests that were not answered for it."""
    with web_process(platform) as (service, port):
        broken = stop_under_load(service, port)
        yield service, broken


def stop_under_load(service: Service, port: int) -> list[str]:
    """Send SIGTERM between requests of many clients and wait for the end; what went wrong of those asked before it."""
    signalled: list[float] = []
    broken: list[str] = []
    answered = [0]

    def ask_until_stopped(client: Client, ask: Callable[[], object], *, again: bool) -> None:
        while not signalled or again:
            asked = time.monotonic()
            try:
                ask()
                answered[0] += 1
            except (OSError, http.client.HTTPException) as error:
                if not signalled or asked < signalled[0]:
                    broken.append(repr(error))
                break
            if not again:
                break
        client.connection.close()

    def start(ask: Callable[[Client], object], *, again: bool) -> threading.Thread:
        client = Client(port)
        thread = threading.Thread(
            target=ask_until_stopped, args=(client, functools.partial(ask, client)), kwargs={"again": again}
        )
        thread.start()
        return thread

    clients = [start(lambda client: client.ask("GET", "/api/health"), again=True) for _ in range(8)]
    eventually(lambda: answered[0] > 200, "some load")
    clients += [start(Client.register, again=False) for _ in range(3)]  # each is a tenth of a second of work
    before = answered[0]
    eventually(lambda: answered[0] > before + 20, "more load, while the slow ones are under way")
    signalled.append(time.monotonic())
    service.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join(60)
    service.process.wait(60)
    return broken


def test_every_request_under_way_is_answered_when_the_platform_stops_us(
    platform: Platform, stopped: tuple[Service, list[str]]
) -> None:
    """SIGTERM under load: what was asked before it gets its whole answer, the exit code is 0, nothing is left."""
    service, broken = stopped
    assert [] == broken
    assert "web.1 stopped (rc=0)" in service.output
    assert "Traceback" not in service.output
    eventually(lambda: not platform.checkout.processes(), "the end of every process")


def test_web_log_is_json(stopped: tuple[Service, list[str]]) -> None:
    """Every line of the web process is one JSON object, from gunicorn's first to a worker's last."""
    service, _ = stopped
    lines = [line.partition(" | ") for line in service.output.splitlines()]
    records = [json.loads(text) for name, _, text in lines if name.split()[1] == "web.1"]
    assert "Starting gunicorn" in records[0]["message"]
    assert "Shutting down: Master" == records[-1]["message"]
    assert all({"timestamp", "level", "message", "service"} <= record.keys() for record in records)


def test_deploy_09_a_stop_leaves_no_complaint(stopped: tuple[Service, list[str]]) -> None:
    """The workers' listeners are closed once: the log of a stop has nothing about bad descriptors."""
    service, _ = stopped
    assert "service.stopped" in service.output
    assert "Error while closing socket" not in service.output


def test_deploy_09_a_procfile_for_honcho(platform: Platform) -> None:
    """`honcho start -f Procfile.dev` migrates and goes on serving; Ctrl-C ends it."""
    port = free_port()
    service = platform.honcho("-f", str(platform.checkout.folder / "Procfile.dev"), port=port)
    try:
        eventually(lambda: is_ready(HOST, port) or service.process.poll() is not None, "readiness")
        assert service.process.poll() is None, service.output
        assert "migrate.finished" in service.output
    finally:
        service.process.send_signal(signal.SIGINT)
        service.process.wait(60)
    eventually(lambda: not platform.checkout.processes(), "the end of every process")


def test_deploy_09_a_taken_port_is_one_line(platform: Platform) -> None:
    """`serve` says which port is in use and what to do, at once, and ends with 1."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = platform.checkout.server("serve", **platform.variables, PORT=str(port))
    assert 1 == result.returncode
    assert 1 == len((result.stdout + result.stderr).splitlines())
    assert f"PORT: {port} of {HOST} is in use" in result.stderr
    assert "python -m server serve" in result.stderr


def test_app_json_asks_for_what_the_service_needs() -> None:
    """A platform that reads app.json gives every variable that production refuses to start without."""
    app = json.loads((ROOT / "app.json").read_text())
    assert ["heroku-postgresql", "heroku-redis"] == [addon.partition(":")[0] for addon in app["addons"]]
    assert "secret" == app["env"]["SECRET_KEY"]["generator"]
    processes = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert {"release", "web"} == set(processes)
    assert set(app["formation"]) <= set(processes)


def test_deploy_02_app_json_fits_the_smallest_plan() -> None:
    """Two workers on a database of 20 connections leave some for a migration and for people."""
    app = json.loads((ROOT / "app.json").read_text())
    assert 2 * int(app["env"]["DATABASE_POOL_SIZE"]["value"]) <= 20 - 3


def test_the_version_of_python_is_named() -> None:
    """The platform's buildpack reads it."""
    assert re.fullmatch(r"3\.\d+\n", Path(ROOT / ".python-version").read_text())

"""What is measured: how each subject is started, asked and watched."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness.load import request_bytes
from bench.harness.machine import Cores, on_cores
from bench.harness.world import World
from server.cli.web import gunicorn_command
from server.development import free_port
from server.development.processes import Process, child_process, wait_until_ready
from server.errors import CommandError
from server.settings import ROOT

START_SECONDS = 60.0
POLICIES = ROOT / "bench" / "ratelimits.toml"
_PEERS = ROOT / "bench" / "peers"


class SubjectFailed(CommandError):
    """A subject did not start, or does not answer as it should; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a subject.

    Attributes:
        command: the word {port} in it is replaced.
        environment: on top of ours; HOST, PORT and ACCESS_LOG are added.
        expected: the status of its first answer.
        logs_itself: whether it opens its access log itself, by ACCESS_LOG; else that is its standard output.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path = ROOT
    expected: int = 200
    logs_itself: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject that is running.

    Attributes:
        log: where its access log goes.
        began: when its process was started, in the seconds of `perf_counter`.
        start_seconds: from then to its first answer.
    """

    name: str
    port: int
    process: Process
    log: Path
    began: float
    start_seconds: float
    world: World = field(repr=False)

    def ask(self, path: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request, as the first reader unless `headers` say otherwise; for the class by default."""
        return ask(self.port, path or self.world.path, headers or bearer(self.world.tokens[0]))

    def requests(
        self, headers: Mapping[str, str] | None = None, *, path: str | None = None, anonymous: bool = False
    ) -> list[bytes]:
        """The requests of the load: one of every reader for the class, with further headers; or of a stranger."""
        callers = [{}] if anonymous else [bearer(token) for token in self.world.tokens]
        return [
            request_bytes(self.port, path or self.world.path, {**caller, **(headers or {})})
            for caller in callers
        ]

    def forget_log(self) -> None:
        """Empty the access log, or a long run fills the disk; it is open for appending."""
        os.truncate(self.log, 0)


@contextlib.contextmanager
def running(launch: Launch, world: World, *, cores: Cores | None = None) -> Iterator[Subject]:
    """A subject for the length of the block, ready to be measured.

    Raises:
        SubjectFailed: it is not.
    """
    port = free_port()
    log = world.folder / f"{launch.name}.log"
    environment = {
        **os.environ,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ACCESS_LOG": str(log),
        **launch.environment,
    }
    command = [word.replace("{port}", str(port)) for word in launch.command]
    output = log.with_suffix(".out")  # the peer that opens its access log itself talks here

    def answers() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(port, world.path, bearer(world.tokens[0])).status == launch.expected
        return False

    with contextlib.ExitStack() as stack:
        to_log = stack.enter_context(log.open("ab"))
        to_output = stack.enter_context(output.open("ab")) if launch.logs_itself else to_log
        began = time.perf_counter()
        with on_cores((cores or world.cores).subject):
            process = stack.enter_context(
                child_process(command, environment=environment, output=to_output.fileno())
            )
        if not wait_until_ready(process, answers, seconds=START_SECONDS):
            said = (output if launch.logs_itself else log).read_text(errors="replace")[-1500:]
            raise SubjectFailed(f"{launch.name} did not start; it said:\n{said}")
        yield Subject(launch.name, port, process, log, began, time.perf_counter() - began, world)


def service(
    world: World, *, name: str = "service", policies: Path = POLICIES, workers: int = 1, expected: int = 200
) -> Launch:
    """Our service as in production: gunicorn by `serve`, its log as JSON lines."""
    return Launch(
        name,
        [sys.executable, "-m", "server", "serve"],
        {
            "DATABASE_URL": world.database_url,
            "REDIS_URL": world.redis.url,
            "SECRET_KEY": world.secret_key,
            "RATE_LIMITS_FILE": str(policies),
            "WEB_CONCURRENCY": str(workers),
            "MASTERY_ENV": "production",
            "LOG_LEVEL": "info",
            "LOG_FORMAT": "json",
            "GUNICORN_CMD_ARGS": "",
            "METRICS_TOKEN": "",
            "PROMETHEUS_MULTIPROC_DIR": "",
        },
        expected=expected,
    )


_MADE_BY_AIOHTTP = frozenset({"content-length", "date", "connection"})


def bare(world: World, reference: Answer) -> Launch:
    """The yardstick: the same worker, the same bytes, and nothing else."""
    body, headers = world.folder / "body", world.folder / "headers"
    body.write_bytes(reference.body)
    told = {name: value for name, value in reference.headers.items() if name not in _MADE_BY_AIOHTTP}
    headers.write_text(json.dumps(told))
    command = [*gunicorn_command(ROOT)[:-1], "bench.peers.bare.app:application"]
    environment = {
        "BODY_FILE": str(body),
        "HEADERS_FILE": str(headers),
        "WEB_CONCURRENCY": "1",
        "GUNICORN_CMD_ARGS": "",
        "PROMETHEUS_MULTIPROC_DIR": "",
    }
    return Launch("bare", command, environment)


def bearer(token: str) -> dict[str, str]:
    """The header that says who is asking."""
    return {"Authorization": f"Bearer {token}"}


def ask(port: int, path: str, headers: Mapping[str, str]) -> Answer:
    """One GET request to 127.0.0.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )

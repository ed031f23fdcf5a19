"""config/gunicorn.py on a real gunicorn with two workers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.development import free_port
from tests.support.waiting import WAIT_SECONDS, eventually

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Gunicorn:
    """A running server, and what it has written."""

    process: subprocess.Popen[bytes]
    port: int
    output: Path
    directory: Path

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def lines(self) -> list[dict[str, Any]]:
        """The lines so far; each of them has to be JSON of our shape."""
        whole, _, _ = self.output.read_bytes().rpartition(b"\n")
        lines: list[dict[str, Any]] = [orjson.loads(line) for line in whole.splitlines()]
        for line in lines:
            assert {"timestamp", "level", "message", "logger", "service", "env", "version"} <= set(line)
        return lines

    def messages(self) -> list[str]:
        """The events so far."""
        return [line["message"] for line in self.lines()]

    def workers(self) -> set[str]:
        """The process ids of the workers that have answered one of some requests."""
        return {self.get("/pid")[1] for _ in range(20)}

    def sample(self, pattern: str) -> float:
        """The value of the metric whose line the pattern matches; 0 if there is none."""
        found = re.search(rf"^{pattern} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextlib.contextmanager
def running(folder: Path, **environment: str) -> Iterator[Gunicorn]:
    """Two workers of the small application, as a platform would start them."""
    port = free_port()
    directory = folder / "metrics"
    output = folder / "output"
    variables = {
        **os.environ,
        "PORT": str(port),
        "WEB_CONCURRENCY": "2",
        "PROMETHEUS_MULTIPROC_DIR": str(directory),
        "GUNICORN_CMD_ARGS": "--access-logfile -",
        **environment,
    }
    command = [
        sys.executable, "-m", "gunicorn", "--chdir", str(ROOT), "--config", str(ROOT / "config" / "gunicorn.py"),
        "tests.telemetry.logs.gunicorn_app:application",
    ]  # fmt: skip
    with output.open("wb") as file:
        process = subprocess.Popen(command, env=variables, stdout=file, stderr=subprocess.STDOUT)
    server = Gunicorn(process, port, output, directory)
    try:
        eventually(lambda: process.poll() is not None or answers(server), "the server answers")
        yield server
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def answers(server: Gunicorn) -> bool:
    """Whether both workers answer."""
    with contextlib.suppress(OSError):
        return len(server.workers()) == 2
    return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Gunicorn]:
    """A server of one's own."""
    with running(tmp_path) as server:
        yield server


def test_every_line_is_json(server: Gunicorn) -> None:
    """From gunicorn's first line to its last, whatever happens: one shape, no plain text, no access log."""
    assert 500 == server.get("/noise")[0]
    eventually(lambda: "loop.uncaught_exception" in server.messages(), "the failure is logged")
    server.process.send_signal(signal.SIGTERM)
    assert 0 == server.process.wait(WAIT_SECONDS)
    lines = server.lines()
    assert lines[0]["message"].startswith("Starting gunicorn")
    assert lines[-1]["message"].startswith("Shutting down")
    assert server.output.read_bytes().endswith(b"\n")
    loggers = {line["logger"] for line in lines}
    assert {
        "gunicorn.error",
        "tests.gunicorn_app",
        "py.warnings",
        "server.telemetry.logs.setup",
        "aiohttp.server",
    } <= loggers
    assert not {"gunicorn.access", "aiohttp.access"} & loggers
    assert not any("GET /pid" in line["message"] for line in lines)


def test_metrics_add_up_over_workers(server: Gunicorn) -> None:
    """Whoever is asked answers for all, and a reset holds for all while the counters go on."""
    for number in range(30):
        server.get(f"/hit/{number}")
    assert 2 == len(server.workers())
    assert {30.0} == {server.sample("cache_hits_total") for _ in range(6)}
    assert 30.0 == server.sample(
        r'http_responses_total\{method="GET",path_template="/hit/\{who\}",status_code="200"\}'
    )
    assert 1.0 == server.sample("http_requests_in_flight")  # the one that asks
    server.get("/reset")
    server.get("/hit/again")
    bodies = [server.get("/metrics")[1] for _ in range(6)]
    assert all("\ncache_hits_total 31.0\n" in body and "# totals 1\n" in body for body in bodies)


def test_a_killed_worker_is_replaced_and_counters_do_not_go_back(server: Gunicorn) -> None:
    """A dead worker's counts stay, its gauges go, and a new worker counts on."""
    for number in range(10):
        server.get(f"/hit/{number}")
    before = server.workers()
    assert 10.0 == server.sample("cache_hits_total")  # seen once, it must be seen again
    with contextlib.suppress(OSError, http.client.HTTPException):
        server.get("/die")
    eventually(lambda: answers(server) and server.workers() != before, "the worker is replaced")
    assert 10.0 == server.sample("cache_hits_total")
    server.get("/hit/more")
    assert 11.0 == server.sample("cache_hits_total")
    assert 1.0 == server.sample("http_requests_in_flight")
    _, text = server.get("/metrics")
    assert server.workers() == set(re.findall(r'process_memory_rss_bytes\{pid="(\d+)"\}', text))


def test_sigterm_lets_requests_finish(server: Gunicorn) -> None:
    """A request that is under way when the server is asked to stop gets its answer, and the exit code is 0."""
    with concurrent.futures.ThreadPoolExecutor() as threads:
        answer = threads.submit(server.get, "/slow")
        eventually(lambda: "slow.begun" in server.messages(), "the request is under way")
        server.process.send_signal(signal.SIGTERM)
        assert (200, "done") == answer.result(WAIT_SECONDS)
    assert 0 == server.process.wait(WAIT_SECONDS)


def test_a_former_run_is_forgotten(tmp_path: Path) -> None:
    """Metrics that an earlier run left in the directory do not count, and other people's files stay."""
    directory = tmp_path / "metrics"
    directory.mkdir()
    (directory / "counter_1.db").write_bytes(b"not a file of this run")
    (directory / "notes.txt").write_text("mine")
    with running(tmp_path) as server:
        server.get("/hit/1")
        assert 1.0 == server.sample("cache_hits_total")
    assert "mine" == (directory / "notes.txt").read_text()


def test_a_private_directory_is_made_and_removed(tmp_path: Path) -> None:
    """Without a directory in the environment a private one serves, which only the owner may read, and which goes."""
    with running(tmp_path, PROMETHEUS_MULTIPROC_DIR="") as server:
        server.get("/hit/1")
        assert 1.0 == server.sample("cache_hits_total")
        environment = Path(f"/proc/{server.workers().pop()}/maps").read_text()
        found = re.search(r"\S*/mastery-metrics-\w+", environment)
        assert found is not None
        directory = Path(found[0])
        assert 0o700 == directory.stat().st_mode & 0o777
    assert not directory.exists()


def test_a_reload_keeps_counting(server: Gunicorn) -> None:
    """SIGHUP replaces the workers; lines are not doubled and counters go on."""
    server.get("/hit/1")
    before = server.workers()
    server.process.send_signal(signal.SIGHUP)

    def are_new() -> bool:
        try:
            return answers(server) and not server.workers() & before
        except (
            ConnectionError
        ):  # aiohttp's own runner, unlike the service's, closes what it has just accepted
            return False

    eventually(are_new, "all workers are new")
    server.get("/hit/2")
    assert 2.0 == server.sample("cache_hits_total")
    assert 1 == sum(message.startswith("Hang up") for message in server.messages())


def test_preloading_is_refused(tmp_path: Path) -> None:
    """A preloaded application would give every worker metrics of its own: the server does not start."""
    with running(tmp_path, GUNICORN_CMD_ARGS="--preload") as server:
        assert 1 == server.process.wait(WAIT_SECONDS)
    assert b"must not be preloaded" in server.output.read_bytes()

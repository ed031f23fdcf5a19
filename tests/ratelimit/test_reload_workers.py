"""The rate limits file under a real gunicorn: a mistake in it never takes a worker away."""

from __future__ import annotations

import http.client
import os
import re
import signal
from contextlib import closing
from pathlib import Path

import orjson
import psutil

from server.cli.web import is_ready
from server.development import EmbeddedServer
from server.settings import ROOT
from tests.support.service import Service, running_service
from tests.support.waiting import eventually

GENEROUS = re.compile(r"(?<=\[policies\.generous\]\nlimit = )[\d_]+")
KEPT = b"rate_limits.kept_last_good"
STARTED = b'"service.started"'


def write(file: Path, limit: int) -> None:
    """Limits that are out of the way, and one for reads; 0 is a mistake."""
    text, count = GENEROUS.subn(str(limit), (ROOT / "bench" / "ratelimits.toml").read_text())
    assert count == 1
    file.write_text(text)


def limit_of(service: Service) -> int:
    """The limit of reads that an answer tells of."""
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        connection.request("GET", "/api/classes", headers={"Authorization": f"Bearer {service.user_token}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        found = re.search(r'"generous";q=(\d+)', answer.headers["RateLimit-Policy"])
        assert found is not None
        return int(found[1])


def workers(service: Service) -> set[int]:
    """The process ids of the workers."""
    return {child.pid for child in psutil.Process(service.process.pid).children()}


def wait_for_new_workers(service: Service, before: set[int], count: int) -> None:
    """Wait until two workers are there and so many of them are new, and the service answers."""

    def are_new() -> bool:
        now = workers(service)
        return len(now) == 2 and len(now - before) == count

    eventually(are_new, "the workers are new")
    eventually(lambda: is_ready("127.0.0.1", service.port), "they answer")


def test_point_15_the_last_good_limits_are_kept_over_sighup_and_a_worker_s_death(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str, tmp_path: Path
) -> None:
    """Workers that start while the file is wrong serve with what was valid last, and follow its correction."""
    file, log = tmp_path / "ratelimits.toml", tmp_path / "log"
    write(file, 77_000)
    with (
        log.open("wb") as output,
        running_service(
            shared_postgres, shared_redis, database_template, output=output, RATE_LIMITS_FILE=str(file)
        ) as service,
    ):
        # One of the two answers as soon as it has started: the other would find the mistake at its own start.
        eventually(lambda: log.read_bytes().count(STARTED) == 2, "both serve")
        assert limit_of(service) == 77_000
        write(file, 0)
        before = workers(service)
        service.process.send_signal(signal.SIGHUP)
        wait_for_new_workers(service, before, 2)
        eventually(lambda: log.read_bytes().count(KEPT) == 2, "both have read the file")
        assert {77_000} == {limit_of(service) for _ in range(10)}

        before = workers(service)
        os.kill(min(before), signal.SIGKILL)
        wait_for_new_workers(service, before, 1)
        eventually(lambda: log.read_bytes().count(KEPT) == 3, "it has read the file")
        assert {77_000} == {limit_of(service) for _ in range(10)}

        write(file, 55_000)
        eventually(lambda: {55_000} == {limit_of(service) for _ in range(10)}, "the correction is in force")

    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    kept = [line for line in lines if line["message"] == KEPT.decode()]
    assert len(kept) == 3
    number = file.read_text().partition("limit = 55000")[0].count("\n") + 1
    assert all(line["problems"][0].startswith(f"{file}:{number}: policies.generous.limit") for line in kept)

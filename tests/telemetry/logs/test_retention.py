"""How long lines stay: the page's configuration of logrotate under the running service, and how a person is erased."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server.development import EmbeddedServer
from server.telemetry.logs.output import LineOutput
from tests.support.service import Service, running_service
from tests.support.waiting import eventually
from tests.telemetry.logs.test_consumers import block, replaced

LOGROTATE = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
HEADING = "Volume, rotation, retention"

needs_logrotate = pytest.mark.skipif(
    LOGROTATE is None, reason="there is no logrotate (Debian, Ubuntu: apt-get install logrotate)"
)


def rotate(log: Path) -> Path:
    """Rotate the log as the page says, now, and give the file that has its lines then."""
    assert LOGROTATE is not None
    configuration = log.with_suffix(".conf")
    configuration.write_text(replaced(block(HEADING, "logrotate"), {"/var/log/mastery.log": str(log)}))
    configuration.chmod(0o600)
    command = [LOGROTATE, "--force", "--state", str(log.with_suffix(".state")), str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return log.with_name(f"{log.name}.1.gz")


def lines_of(data: bytes) -> list[dict[str, Any]]:
    """The lines of a log, each of which is whole."""
    return [json.loads(line) for line in data.splitlines()]


def ask(service: Service, log: Path, path: str, token: str | None) -> None:
    """Send a request, and wait for its line."""
    before = log.read_bytes().count(b"http.request")
    service.request("GET", path, token=token)
    eventually(lambda: log.read_bytes().count(b"http.request") > before, "its line")


@needs_logrotate
def test_deploy_17_a_rotated_log_goes_on_and_a_person_is_erased_from_it(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str, tmp_path: Path
) -> None:
    """Two workers go on at the new beginning; what the page says takes a person's lines out, and no others."""
    log = tmp_path / "mastery.log"
    with (
        log.open("ab") as output,
        running_service(shared_postgres, shared_redis, database_template, output=output) as service,
    ):
        eventually(lambda: log.read_bytes().count(b'"service.started"') == 2, "the start of both workers")
        for token in (service.user_token, service.admin_token, None):
            ask(service, log, "/api/classes", token)
        before = lines_of(log.read_bytes())
        rotated = rotate(log)
        ask(service, log, "/api/stats", service.user_token)
        _, who = service.request("GET", "/api/auth/me", token=service.user_token)
    account_id = json.loads(who)["user"]["id"]
    assert before == lines_of(gzip.decompress(rotated.read_bytes()))
    after = lines_of(log.read_bytes())
    assert "/api/stats" == after[0]["http.route"]
    assert account_id == after[0]["user_id"]

    assert account_id in {line.get("user_id") for line in before}
    erase = replaced(block("Personal data", "sh"), {"/var/log/mastery.log": str(log)})
    subprocess.run(["sh", "-ec", erase], env=os.environ | {"ACCOUNT_ID": account_id}, check=True)
    assert [line for line in before if line.get("user_id") != account_id] == lines_of(
        gzip.decompress(rotated.read_bytes())
    )
    assert [rotated] == list(tmp_path.glob("*.gz*"))


@pytest.mark.parametrize(("flag", "expected"), [(os.O_APPEND, b"second\n"), (0, b"\0" * 6 + b"second\n")])
def test_deploy_17_a_cut_file_has_to_be_appended_to(tmp_path: Path, flag: int, expected: bytes) -> None:
    """With `>>`, the next line is the first of the file that was cut; with `>`, as many NULs as were cut precede it."""
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag)
    output = LineOutput(descriptor)
    output.write(b"first\n")
    os.truncate(path, 0)
    output.write(b"second\n")
    output.close()
    os.close(descriptor)
    assert expected == path.read_bytes()

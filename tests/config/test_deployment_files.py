"""What stands beside the Procfile: the container, Compose and systemd, as far as it can be tried without them."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from server.cli.web import is_ready
from server.development import EmbeddedServer, free_port
from server.development.processes import child_process, wait_until_ready
from server.settings import ROOT, Settings
from tests.support.programs import needs

HADOLINT = Path(sys.executable).parent / "hadolint"


@pytest.mark.skipif(not HADOLINT.exists(), reason="for want of hadolint for this platform")
def test_deploy_10_the_dockerfile_has_no_faults() -> None:
    """Its linter finds nothing."""
    done = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stdout)


def test_deploy_10_what_the_image_copies_is_enough_to_serve(
    database_url: str, own_redis: EmbeddedServer, tmp_path: Path
) -> None:
    """The folders that the Dockerfile copies, and nothing else of the checkout, become ready with its command."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    folders = re.findall(r"^COPY (\w+) \./\1$", dockerfile, re.MULTILINE)
    assert {"server", "lua", "sql", "config"} == set(folders)
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    for folder in folders:
        assert f"!{folder}" in (ROOT / ".dockerignore").read_text().split()
        shutil.copytree(ROOT / folder, tmp_path / "srv" / folder)
    port = free_port()
    command = [sys.executable, *re.findall(r'"([^"]+)"', dockerfile.rpartition("CMD")[2])[1:]]
    environment = os.environ | settings_of(database_url, own_redis, port)
    with child_process(inside(tmp_path / "srv", command), environment=environment) as process:
        assert wait_until_ready(process, lambda: is_ready("127.0.0.1", port), seconds=60)


def test_deploy_10_compose_names_settings_that_there_are() -> None:
    """The variables of the service are settings, the addresses those of the other services, and both are accepted."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = compose["services"]
    assert {"database", "redis", "release", "web"} == services.keys()
    environment = services["web"]["environment"] | {"SECRET_KEY": secrets.token_hex(32)}
    settings = Settings.from_env(environment)
    assert "@database:" in settings.database_url
    assert "//redis:" in settings.redis_url
    assert 2 == settings.web_concurrency
    assert {"release", "redis"} == services["web"]["depends_on"].keys()


@needs("systemd-socket-activate", "systemd")
def test_deploy_10_systemd_hands_over_its_socket(database_url: str, own_redis: EmbeddedServer) -> None:
    """The unit's command serves on the socket that systemd has opened, on a port that it could not open itself."""
    unit = (ROOT / "deploy" / "mastery.service").read_text()
    command = re.findall(r"^ExecStart=\S+/python (.+)$", unit, re.MULTILINE)[0].split()
    port = free_port()
    variables = settings_of(database_url, own_redis, port)
    activated = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}"]
    activated += [f"--setenv={name}={value}" for name, value in variables.items()]
    with child_process(inside(ROOT, [*activated, sys.executable, *command])) as process:
        assert wait_until_ready(process, lambda: is_ready("127.0.0.1", port), seconds=60)


@needs("systemd-analyze", "systemd")
def test_deploy_10_the_units_have_no_faults(tmp_path: Path) -> None:
    """Systemd itself reads them without a remark."""
    for name in ("mastery.socket", "mastery.service"):
        text = (ROOT / "deploy" / name).read_text()
        (tmp_path / name).write_text(text.replace("/srv/mastery/.venv/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SYSTEMD_LOG_COLOR": "0"},
    )
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def inside(folder: Path, command: list[str]) -> list[str]:
    """The command, run in a folder."""
    return ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *command]


def settings_of(database_url: str, redis: EmbeddedServer, port: int) -> dict[str, str]:
    """The variables that a deployment has to set."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis.url,
        "SECRET_KEY": secrets.token_hex(32),
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }

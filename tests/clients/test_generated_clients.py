"""Clients that are generated from the document alone do the whole main job against the real service."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.development import EmbeddedServer
from server.domain.catalog.deck_workbooks import XLSX_TYPE
from tests.support.programs import needs
from tests.support.service import Service, running_service

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def service(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str
) -> Iterator[Service]:
    """Two workers over the sample course."""
    with running_service(shared_postgres, shared_redis, database_template) as running:
        yield running


def run(folder: Path, *command: str | Path, **variables: str) -> str:
    """Run a command that has to succeed, and give what it reports."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert 0 == done.returncode, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.long
@needs("node")
@needs("npm")
def test_a_typescript_client_does_the_main_job(service: Service, tmp_path: Path) -> None:
    """openapi-typescript makes its types, tsc --strict accepts the program, and openapi-fetch sends what is meant."""
    folder = tmp_path / "typescript"
    shutil.copytree(HERE / "typescript", folder, ignore=shutil.ignore_patterns("node_modules"))
    run(folder, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline")
    run(folder, "node_modules/.bin/openapi-typescript", f"{service.address}/api/openapi.json", "-o", "api.ts")
    run(folder, "node_modules/.bin/tsc", "--strict")
    run(folder, "node", "built/main_job.js", MASTERY=service.address, ADMIN=service.admin_token)


@pytest.mark.long
def test_a_python_client_does_the_main_job(service: Service, tmp_path: Path) -> None:
    """openapi-python-client makes all of it but bodies of text and of bytes; the form has them."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin"
    run(tmp_path, python / "pip", "install", "--quiet", "--requirement", HERE / "python" / "requirements.txt")
    generated = run(
        tmp_path,
        python / "openapi-python-client",
        *("generate", "--url", f"{service.address}/api/openapi.json", "--output-path", "client"),
        PATH=f"{python}{os.pathsep}{os.environ['PATH']}",
    )
    unsupported = {line.split()[-1] for line in generated.splitlines() if line.startswith("Unsupported")}
    assert {"text/tab-separated-values", "text/csv", "text/plain", XLSX_TYPE} == unsupported
    assert 4 == generated.count("WARNING")
    run(
        tmp_path,
        python / "python",
        HERE / "python" / "main_job.py",
        PYTHONPATH=str(tmp_path / "client"),
        MASTERY=service.address,
        ADMIN=service.admin_token,
    )

"""A PostgreSQL whose disk is full, for real: a small file system in memory that the test fills."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli.migrations import migrate
from server.development import postgres_server
from tests.api.conftest import Api, Course
from tests.api.test_database_states import health, problem, unready
from tests.conftest import FAST_POSTGRES
from tests.support.waiting import wait_until

SIZE = "160m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if (
        mount is None
        or os.geteuid() != 0
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("to mount a small file system takes root, and a machine that allows it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def database_url(disk: Path) -> Iterator[str]:
    """A migrated database on that file system."""
    with postgres_server(disk / "postgres", options=FAST_POSTGRES) as server:
        migrate(server.url)
        yield server.url


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


async def test_deploy_16_a_full_disk_is_degraded(api: Api, course: Course, disk: Path) -> None:
    """Writing is a 503 with a code of its own while reading goes on; health says so until there is room again."""
    assert (200, "healthy", "healthy", None) == await health(api)
    filler = disk / "filler"
    fill(filler)
    rating = f"/api/progress/cards/{course.cards['r1']}"

    async def is_full() -> bool:
        answer = await api.put(rating, json={"confidenceLevel": 3})  # until one needs a new page
        if answer.status == 503:
            await problem(answer, "disk_full")
        return answer.status == 503

    await wait_until(is_full, "a rating needs room")
    for _ in range(2):
        assert (200, "degraded", "degraded", "disk_full") == await health(api)
    assert await unready(api) is None
    assert 200 == (await api.get("/api/classes")).status
    filler.unlink()
    assert (200, "healthy", "healthy", None) == await health(api)
    assert 200 == (await api.put(rating, json={"confidenceLevel": 3})).status

"""The files of metrics on disks that are full, in folders that are gone, and beside other services."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.telemetry.metrics.directory import VARIABLE, prepare_directory, remove_directory
from server.telemetry.metrics.value_files import ValueFile, repair_files, sharing_fault, unshared_files
from server.telemetry.metrics.workers import WorkerFiles
from tests.support.waiting import WAIT_SECONDS, eventually
from tests.telemetry.conftest import Lines
from tests.test_restarts import Group, running

KEYS = 2000  # more than two of the pages that a file begins with


def mount(folder: Path, options: str) -> None:
    """Mount a file system in memory, or change it."""
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode:
        pytest.skip(f"mounting is not allowed here: {result.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 192 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount(folder, "size=192k")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[ValueFile]]:
    """A place for files, which are closed afterwards."""
    del tmp_path
    files: list[ValueFile] = []
    yield files
    for file in files:
        file.close()


def fill(file: ValueFile, keys: int = KEYS) -> None:
    """Count one in each of many series."""
    for number in range(keys):
        key = f'["requests", "requests_total", {{"number": "{number}"}}, "help"]'
        value, _ = file.read_value(key)  # type: ignore[no-untyped-call]
        file.write_value(key, value + 1.0, 0.0)  # type: ignore[no-untyped-call]


def counted(folder: Path) -> tuple[int, set[float]]:
    """How many series a scrape by this process finds, and their values."""
    values = WorkerFiles(folder).values().get("requests", [])
    return len(values), {value for _, value in values}


def test_deploy_07_a_full_disk_is_no_end(small_disk: Path, files: list[ValueFile]) -> None:
    """What has no room is counted in memory, and shared as soon as there is room."""
    files += [ValueFile(str(small_disk / f"counter_{number}.db")) for number in range(4)]
    for file in files:
        fill(file)
    assert "full" == sharing_fault()
    assert (KEYS, {4.0}) == counted(small_disk)
    mount(small_disk, "remount,size=4m")
    repair_files()
    assert [] == unshared_files()
    assert (KEYS, {4.0}) == counted(small_disk)
    for file in files:
        fill(file)
    assert (KEYS, {8.0}) == counted(small_disk)


def test_deploy_07_a_file_may_be_no_larger(tmp_path: Path, files: list[ValueFile]) -> None:
    """The same with a limit on the size of files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    files.append(ValueFile(str(tmp_path / "counter_1.db")))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        fill(files[0])
        repair_files()
        assert "full" == sharing_fault()
        assert (KEYS, {1.0}) == counted(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    repair_files()
    assert sharing_fault() is None
    assert (KEYS, {1.0}) == counted(tmp_path)


def test_deploy_07_removed_files_are_made_anew(tmp_path: Path, files: list[ValueFile]) -> None:
    """Somebody has tidied up: the folder comes back with everything that was counted."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    files.append(ValueFile(str(folder / "counter_1.db")))
    fill(files[0])
    (folder / "counter_1.db").unlink()
    folder.rmdir()
    assert (0, set()) == counted(folder)
    repair_files()
    assert (KEYS, {1.0}) == counted(folder)


def test_a_file_that_has_grown_is_gone_on_with(tmp_path: Path, files: list[ValueFile]) -> None:
    """A process that gets the id of one before it finds a file, of whatever size, and counts on in it."""
    for total in (1.0, 2.0, 3.0):
        file = ValueFile(str(tmp_path / "counter_1.db"))
        files.append(file)
        fill(file)
        assert file.fault is None
        assert (KEYS, {total}) == counted(tmp_path)
        file.close()


def test_files_that_were_removed_are_logged_once(
    tmp_path: Path, files: list[ValueFile], logged: Lines
) -> None:
    """That they are back is said with their folder, and not again while they stay."""
    files += [ValueFile(str(tmp_path / f"counter_{number}.db")) for number in range(3)]
    repair_files()
    assert [] == logged()
    (tmp_path / "counter_1.db").unlink()
    repair_files()
    repair_files()
    (line,) = logged()
    assert ("metrics.files_missing", str(tmp_path)) == (line["message"], line["directory"])


def test_deploy_07_a_file_where_none_can_be_made_is_in_memory(tmp_path: Path, files: list[ValueFile]) -> None:
    """The folder is a file: the process counts, and its own scrape shows it."""
    (tmp_path / "metrics").write_text("mine")
    files.append(ValueFile(str(tmp_path / "metrics" / "counter_1.db")))
    fill(files[0])
    repair_files()
    assert sharing_fault() is not None
    assert (KEYS, {1.0}) == counted(tmp_path / "metrics")
    assert "mine" == (tmp_path / "metrics").read_text()


def test_deploy_07_a_service_on_a_full_disk_serves_and_outlives_its_workers(
    small_disk: Path, tmp_path: Path
) -> None:
    """Nothing can be written: two workers answer, one that dies is replaced, the log says it once for each process."""
    (small_disk / "filler").write_bytes(bytes(180_000))
    with running(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(small_disk)) as group:
        check_that_it_outlives_a_worker(group)
        lines = [line for line in group.messages().splitlines() if "metrics.not_shared" in line]
        assert 1 <= len(lines) <= 3


def test_deploy_07_a_removed_directory_ends_nobody(tmp_path: Path) -> None:
    """The folder is removed while the service runs, and then a worker dies."""
    folder = tmp_path / "metrics"
    with running(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(folder)) as group:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        check_that_it_outlives_a_worker(group)
        assert folder.is_dir()


def check_that_it_outlives_a_worker(group: Group) -> None:
    """One worker is killed: it is replaced, metrics are answered, and the master goes on."""
    before = group.workers()
    os.kill(int(before.pop()), signal.SIGKILL)
    eventually(lambda: group.are_two() and group.workers() != before, "another worker")
    group.get("/hit/1")
    assert "http_requests_total" in group.get("/metrics")
    assert group.process.poll() is None
    assert "Traceback" not in group.messages()


def test_deploy_07_a_directory_that_can_not_be_used_stops_no_start(tmp_path: Path) -> None:
    """Its name is taken by a file: a private one is used, and the log names the variable."""
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with running(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(taken)) as group:
        for number in range(10):
            group.get(f"/hit/{number}")
        assert 10.0 == group.hits()
        assert "metrics.directory_not_used" in group.messages()
        assert VARIABLE in group.messages()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment that is as before afterwards."""
    monkeypatch.setenv(VARIABLE, "")
    yield monkeypatch
    remove_directory()


def test_deploy_16_two_masters_do_not_delete_each_others_files(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second one with the same directory takes one of its own; when the first has ended, the next takes it over."""
    program = (
        "import sys\n"
        "from server.telemetry.metrics.directory import prepare_directory\n"
        "print(prepare_directory(), flush=True)\n"
        "sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, VARIABLE: str(tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert first.stdout is not None
        assert f"{tmp_path}\n" == first.stdout.readline()
        (tmp_path / "counter_1.db").touch()
        environment.setenv(VARIABLE, str(tmp_path))
        assert tmp_path != prepare_directory()
        assert (tmp_path / "counter_1.db").exists()
    finally:
        first.communicate(timeout=WAIT_SECONDS)
    remove_directory()
    environment.setenv(VARIABLE, str(tmp_path))
    assert tmp_path == prepare_directory()
    assert not (tmp_path / "counter_1.db").exists()


def test_deploy_16_two_services_with_one_directory_keep_their_numbers(tmp_path: Path) -> None:
    """Each counts its own, while both run and when the other has ended."""
    shared = str(tmp_path / "metrics")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running(tmp_path / "a", PROMETHEUS_MULTIPROC_DIR=shared))
        for number in range(3):
            first.get(f"/hit/{number}")
        with running(tmp_path / "b", PROMETHEUS_MULTIPROC_DIR=shared) as second:
            second.get("/hit/1")
            assert (3.0, 1.0) == (first.hits(), second.hits())
        assert 3.0 == first.hits()

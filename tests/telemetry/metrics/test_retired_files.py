"""The files of dead workers are put together, and nobody who reads meanwhile sees another number."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from server.telemetry.metrics.directory import LOCK, VARIABLE
from server.telemetry.metrics.workers import WorkerFiles, forget_worker, retire
from tests.telemetry.conftest import Lines
from tests.telemetry.metrics.test_worker_files import lines_of_ours, lines_of_the_library, write

WORKERS = 40


def names(folder: Path) -> set[str]:
    """The files in a folder, without the lock."""
    return {path.name for path in folder.iterdir()} - {LOCK}


def test_any_number_of_dead_workers_is_two_files(tmp_path: Path) -> None:
    """What they have counted is exposed as before, however many there were, in our numbers and in the library's."""
    for pid in range(1, WORKERS + 1):
        write(tmp_path, pid, "requests", f"{pid % 3}", 10.0 * pid)
        write(tmp_path, pid, "seconds", "x", float(pid))
    files = WorkerFiles(tmp_path)
    expected = lines_of_ours(files, "")
    for pid in range(1, WORKERS + 1):
        retire(tmp_path, pid)
        assert expected == lines_of_ours(files, "")
    assert expected == lines_of_the_library(tmp_path, "") == lines_of_ours(WorkerFiles(tmp_path), "")
    assert {"counter_retired.db", "histogram_retired.db"} == names(tmp_path)


def test_readers_see_no_other_number_meanwhile(tmp_path: Path) -> None:
    """A scrape at any moment finds each dead worker once: a counter that jumps is a reset to Prometheus."""
    for pid in range(1, WORKERS + 1):
        write(tmp_path, pid, "requests", "a", 1.0)
    done = threading.Event()

    def retire_all() -> None:
        for pid in range(1, WORKERS + 1):
            retire(tmp_path, pid)
        done.set()

    thread = threading.Thread(target=retire_all)
    thread.start()
    seen, files = set(), WorkerFiles(tmp_path)
    while not done.is_set():
        ((_, value),) = files.values("counter")["requests"]
        seen.add(value)
    thread.join()
    assert {float(WORKERS)} == seen


@pytest.mark.parametrize("content", [b"", b"\x00\x00"])
def test_a_file_that_was_just_begun_holds_nothing(tmp_path: Path, content: bytes) -> None:
    """A worker that was killed while it made its file leaves nothing."""
    (tmp_path / "counter_7.db").write_bytes(content)
    retire(tmp_path, 7)
    assert "counter_7.db" not in names(tmp_path)


def test_a_file_that_is_broken_stops_nobody(tmp_path: Path) -> None:
    """The master goes on, and what others have counted is untouched."""
    write(tmp_path, 1, "requests", "a", 1.0)
    (tmp_path / "counter_7.db").write_bytes((100).to_bytes(4, "little") + b"\xff" * 60)
    retire(tmp_path, 7)
    retire(tmp_path, 1)
    (tmp_path / "counter_7.db").unlink()
    ((_, value),) = WorkerFiles(tmp_path).values()["requests"]
    assert 1.0 == value


def test_a_reader_that_was_stopped_does_not_stop_the_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who keeps the lock for long is not waited for; nothing is lost, and nothing is left half done."""
    monkeypatch.setattr("server.telemetry.metrics.workers._RETIRING_LOCK_SECONDS", 0.05)
    write(tmp_path, 1, "requests", "a", 1.0)
    with (tmp_path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        retire(tmp_path, 1)
    assert {"counter_1.db"} == names(tmp_path)
    retire(tmp_path, 1)
    assert {"counter_retired.db"} == names(tmp_path)


def test_a_fault_that_lasts_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Lines
) -> None:
    """The master goes on, and the log is not filled by each worker that ends meanwhile."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr("server.telemetry.metrics.workers._logged", set())
    (tmp_path / "counter_retired.tmp").mkdir()  # where the sums would be made
    for pid in (1, 2, 3):
        write(tmp_path, pid, "requests", "a", 1.0)
        forget_worker(pid)
    (line,) = logged()
    assert ("metrics.worker_not_retired", "error", "EISDIR") == (
        line["message"],
        line["level"],
        line["reason"],
    )
    assert {"counter_1.db", "counter_2.db", "counter_3.db"} <= names(tmp_path)

"""Metrics of several processes: real ones, that write, read, and die."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from server.ratelimit.reloading import LAST_GOOD
from server.telemetry.metrics.directory import (
    VARIABLE,
    has_other_workers,
    memory_directory,
    multiprocess_directory,
    prepare_directory,
    remove_directory,
)
from server.telemetry.metrics.workers import forget_worker

# A worker that does what it is told, a line at a time, and answers with a line.
WORKER = """
import sys
from server.telemetry.metrics.index import Metrics
metrics = Metrics()
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class Worker:
    """A process with an index of metrics of its own."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={**os.environ, VARIABLE: str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def evaluate(self, expression: str) -> str:
        """What an expression is worth there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def sample(self, name: str) -> float | None:
        """The value that this worker shows for a metric, named with its labels."""
        text = self.evaluate('metrics.render_text("")[0]')
        for line in text.replace("\\n", "\n").splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return None

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    """Three of them that share a directory."""
    workers = [Worker(tmp_path) for _ in range(3)]
    yield workers
    for worker in workers:
        worker.close()


@pytest.fixture
def forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the master of the workers."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))


def test_counters_add_up_and_survive_their_process(workers: list[Worker], forget: None) -> None:
    """Every worker tells the sum; when one is killed, what it counted stays, and a new one counts on."""
    del forget
    for number, worker in enumerate(workers, start=1):
        worker.evaluate(f"metrics.cache_hits.inc({number})")
        worker.evaluate("metrics.redis_round_trip_seconds.observe(0.01)")
    assert [6.0] * 3 == [worker.sample("cache_hits_total") for worker in workers]
    assert 3.0 == workers[0].sample("redis_round_trip_seconds_count")
    victim = workers[2]
    victim.close()
    forget_worker(victim.process.pid)
    assert 6.0 == workers[0].sample("cache_hits_total")
    directory = multiprocess_directory()
    assert directory is not None
    workers.append(Worker(directory))
    workers[-1].evaluate("metrics.cache_hits.inc()")
    assert 7.0 == workers[0].sample("cache_hits_total")
    assert "7" == workers[1].evaluate("metrics.cache_totals().hits")


def test_gauges_are_those_of_the_living(workers: list[Worker], forget: None) -> None:
    """Gauges add up, or tell the worst, over the workers that live."""
    del forget
    for worker, connected in zip(workers, (1, 1, 0), strict=True):
        worker.evaluate("metrics.http_requests_in_flight.inc(2)")
        worker.evaluate("metrics.database_pool_size.labels('primary').set(5)")
        worker.evaluate(f"metrics.cache_connection_status.set({connected})")
    names = ("http_requests_in_flight", 'database_pool_size{target="primary"}', "cache_connection_status")
    assert [6.0, 15.0, 0.0] == [workers[0].sample(name) for name in names]
    workers[2].close()
    forget_worker(workers[2].process.pid)
    assert [4.0, 10.0, 1.0] == [workers[0].sample(name) for name in names]
    assert "2" == workers[0].evaluate('metrics.render_text("")[0].count(b"process_memory_rss_bytes{pid=")')


def test_a_starting_worker_reports_no_lost_connection(workers: list[Worker]) -> None:
    """A worker that has not looked at Redis yet does not contradict those that have."""
    workers[0].evaluate("metrics.cache_connection_status.set(1)")
    assert [1.0] * 3 == [worker.sample("cache_connection_status") for worker in workers]
    workers[0].evaluate("metrics.cache_connection_status.set(0)")
    assert [0.0] * 3 == [worker.sample("cache_connection_status") for worker in workers]


def test_a_reset_holds_for_all(workers: list[Worker]) -> None:
    """One worker resets; the others show zero, and every counter is as it was."""
    workers[0].evaluate("metrics.cache_hits.inc(5)")
    workers[1].evaluate('metrics.record_cache_error("refused")')
    assert "refused" == workers[2].evaluate("metrics.cache_totals().last_error")
    workers[1].evaluate("metrics.reset_cache_totals()")
    assert ["0"] * 3 == [worker.evaluate("metrics.cache_totals().hits") for worker in workers]
    assert "None" == workers[2].evaluate("metrics.cache_totals().last_error")
    assert 5.0 == workers[2].sample("cache_hits_total")
    assert 0.0 == workers[2].sample("cache_hit_rate")


def test_a_metric_without_values_is_declared(workers: list[Worker]) -> None:
    """With several processes, too, a metric exists before its first value."""
    assert "True" == workers[0].evaluate(
        'b"# TYPE rate_limit_decisions_total counter" in metrics.render_text("")[0]'
    )
    assert "True" == workers[0].evaluate(
        '"rate_limit_decisions_total" in [entry["name"] for entry in metrics.render_json()["metrics"]]'
    )


@pytest.mark.parametrize("content", [b"", b"\x00\x00"])
def test_a_file_that_was_just_begun_is_passed_over(
    tmp_path: Path, workers: list[Worker], content: bytes
) -> None:
    """A worker that was killed while it made its file does not break everybody's metrics."""
    workers[0].evaluate("metrics.cache_hits.inc()")
    (tmp_path / "counter_1.db").write_bytes(content)
    assert 1.0 == workers[1].sample("cache_hits_total")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment that names no directory, and is as before afterwards."""
    monkeypatch.setenv(VARIABLE, "")
    yield monkeypatch
    remove_directory()


def test_a_private_directory(environment: pytest.MonkeyPatch) -> None:
    """Where none is named a private one is made and named, and only its maker removes it."""
    assert multiprocess_directory() is None
    directory = prepare_directory()
    assert directory is not None
    assert directory == multiprocess_directory()
    assert 0o700 == directory.stat().st_mode & 0o777
    with environment.context() as other_process:
        other_process.setattr(os, "getpid", lambda: 1)
        remove_directory()
    assert directory.is_dir()
    remove_directory()
    assert not directory.exists()


def test_a_given_directory(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory that is named is made, emptied of what another run left, and of nothing else, and left behind."""
    given = tmp_path / "given" / "deep"
    environment.setenv(VARIABLE, str(given))
    assert given == prepare_directory()
    for name in ("counter_1.db", "cache_reset.json", "cache_reset.json.77", LAST_GOOD, "notes.txt"):
        (given / name).touch()
    assert given == prepare_directory()
    assert ["notes.txt"] == [path.name for path in given.iterdir()]
    remove_directory()
    assert given.is_dir()


def test_an_upgrade_takes_a_directory_of_its_own(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A master that replaces one which still runs leaves the directory of that one alone."""
    (tmp_path / "counter_1.db").touch()
    environment.setenv(VARIABLE, str(tmp_path))
    fresh = prepare_directory(fresh=True)
    assert fresh != tmp_path
    assert fresh == multiprocess_directory()
    assert (tmp_path / "counter_1.db").exists()


def test_what_a_killed_master_leaves_is_removed_by_the_next(environment: pytest.MonkeyPatch) -> None:
    """A directory whose owner was killed goes when another service starts; that of a living one stays."""
    program = (
        "import sys, time\n"
        "from server.telemetry.metrics.directory import prepare_directory\n"
        "print(prepare_directory(), flush=True)\n"
        "sys.stdin.read()"
    )
    owners = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    killed, living = owners
    directories = []
    for owner in owners:
        assert owner.stdout is not None
        directories.append(Path(owner.stdout.readline().strip()))
    killed.kill()
    killed.communicate()
    assert [True, True] == [directory.is_dir() for directory in directories]
    prepare_directory()
    assert [False, True] == [directory.is_dir() for directory in directories]
    living.communicate()
    remove_directory()
    environment.setenv(VARIABLE, "")
    prepare_directory()
    assert not directories[1].exists()


def test_nothing_to_remove(environment: pytest.MonkeyPatch) -> None:
    """Without a directory there is nothing to prepare for a dead worker, or to remove."""
    del environment
    remove_directory()
    forget_worker(1)


BUFFERED = """
import asyncio
from server.telemetry.metrics.index import Metrics

async def main():
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    metrics.cache_hits.inc(3)
    print(value("cache_hits_total"))
    metrics.http_requests_in_flight.inc(5)
    metrics.http_requests_in_flight.set(2)
    print(value("http_requests_in_flight"))
    metrics.flush()
    print(value("cache_hits_total"), value("http_requests_in_flight"))

asyncio.run(main())
"""


def test_what_is_not_written_yet_is_read(tmp_path: Path) -> None:
    """A process knows its own numbers at once; a value that is set is what it is set to, not more."""
    done = subprocess.run(
        [sys.executable, "-c", BUFFERED],
        env={**os.environ, VARIABLE: str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ["3.0", "2.0", "3.0 2.0"] == done.stdout.splitlines()


def test_a_directory_that_is_being_made_is_left_alone(environment: pytest.MonkeyPatch) -> None:
    """Another master has made it and has not put its name into it yet."""
    del environment
    with TemporaryDirectory(prefix="mastery-metrics-", dir=memory_directory()) as name:
        prepare_directory()
        assert Path(name).is_dir()


def test_other_workers_are_known_by_their_files(tmp_path: Path) -> None:
    """A process that is alone has nobody to wait for."""
    assert not has_other_workers(tmp_path)
    for file in (f"gauge_livesum_{os.getpid()}.db", "counter_1.db", "counter_retired.db"):
        (tmp_path / file).touch()
    assert not has_other_workers(tmp_path)
    (tmp_path / "gauge_liveall_1.db").touch()
    assert has_other_workers(tmp_path)

"""Replacing the workers (SIGHUP) and the master (SIGUSR2) of a service that goes on answering."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gunicorn  # type: ignore[import-untyped]
import orjson
import psutil
import pytest
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]

from bench.restarts import SteadyLoad
from server.cli.master import Master
from server.development import EmbeddedServer, free_port
from server.settings import ROOT
from tests.support.service import running_service
from tests.support.waiting import WAIT_SECONDS, eventually

HOST = "127.0.0.1"


@dataclass
class Group:
    """gunicorn with two workers of a small application, in a process group of its own, and files that break it."""

    process: subprocess.Popen[bytes]
    port: int
    output: Path
    broken: Path
    configuration: Path

    def get(self, path: str) -> str:
        """The answer to one request, on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=30)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            assert 200 == response.status
            return response.read().decode()

    def workers(self) -> set[str]:
        """The process ids of the workers that have answered one of some requests."""
        return {self.get("/pid") for _ in range(20)}

    def are_two(self) -> bool:
        """Whether two workers answer."""
        return self.are(2)

    def are(self, number: int) -> bool:
        """Whether so many workers answer."""
        with contextlib.suppress(OSError):
            return len(self.workers()) == number
        return False

    def messages(self) -> str:
        """What it has written."""
        return self.output.read_text()

    def hits(self) -> float:
        """A counter of all workers."""
        found = re.search(r"^cache_hits_total (\S+)$", self.get("/metrics"), re.MULTILINE)
        assert found is not None
        return float(found[1])

    def members(self) -> list[psutil.Process]:
        """Its living processes."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@contextlib.contextmanager
def running(
    folder: Path,
    command: list[str] | None = None,
    *,
    port: int | None = None,
    inherited: int | None = None,
    **variables: str,
) -> Iterator[Group]:
    """Start it, and stop every process of it."""
    port, output = port or free_port(), folder / "output"
    configuration, broken = folder / "configuration.py", folder / "broken"
    configuration.write_text((ROOT / "config" / "gunicorn.py").read_text())
    environment = {
        **os.environ,
        "HOST": HOST,
        "PORT": str(port),
        "WEB_CONCURRENCY": "2",
        "TEST_BROKEN": str(broken),
        "PROMETHEUS_MULTIPROC_DIR": "",
        **variables,
    }
    arguments = [
        "--chdir",
        str(ROOT),
        "--config",
        str(configuration),
        "tests.telemetry.logs.gunicorn_app:application",
    ]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*(command or [sys.executable, "-m", "gunicorn"]), *arguments],
            env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, cwd=ROOT,
            pass_fds=() if inherited is None else (inherited,),
        )  # fmt: skip
    group = Group(process, port, output, broken, configuration)
    try:
        number = int(environment["WEB_CONCURRENCY"])
        eventually(lambda: process.poll() is not None or group.are(number), "its workers answer")
        yield group
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(WAIT_SECONDS)
        eventually(lambda: not group.members(), "the end of every process")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """A service of one's own."""
    with running(tmp_path) as group:
        yield group


def messages_of(path: Path) -> list[str]:
    """The messages of a log so far."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [orjson.loads(line)["message"] for line in whole.splitlines()]


@pytest.mark.parametrize("how", [signal.SIGHUP, pytest.param(signal.SIGUSR2, marks=pytest.mark.long)])
def test_deploy_06_a_restart_under_load_loses_no_request(
    how: signal.Signals,
    shared_postgres: EmbeddedServer,
    own_redis: EmbeddedServer,
    database_template: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """All workers are new, every request was answered, and each predecessor served until its successor did."""
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        running_service(shared_postgres, own_redis, database_template, output=output) as service,
    ):
        eventually(lambda: 2 == messages_of(log).count("service.started"), "both workers")
        master = psutil.Process(service.process.pid)
        old = [child.pid for child in master.children()]
        load = SteadyLoad(service.port)
        with load.running():
            eventually(lambda: len(load.answers) > 100, "some load")
            master.send_signal(how)
            if how == signal.SIGHUP:
                eventually(lambda: not {*old} & {child.pid for child in master.children()}, "new workers")
                eventually(
                    lambda: "All workers are replaced" in messages_of(log), "the end of the replacement"
                )
            else:
                eventually(lambda: len(master.children()) == 3, "a new master")
                (successor,) = (child for child in master.children() if child.pid not in old)
                service.process.wait(WAIT_SECONDS)
            answered = len(load.answers)
            eventually(lambda: len(load.answers) > answered + 100, "more load")
        if how == signal.SIGUSR2:
            successor.terminate()
            eventually(lambda: not successor.is_running(), "the end of the new master")
        assert [] == load.failures
        record_property("longest_gap_seconds", load.longest_gap())

    events = [message for message in messages_of(log) if message in {"service.started", "service.stopped"}]
    started = [index for index, event in enumerate(events) if event == "service.started"]
    stopped = [index for index, event in enumerate(events) if event == "service.stopped"]
    assert 4 == len(started) == len(stopped)
    for number in range(2):  # the first to stop has waited for the third to start, and so on
        assert started[2 + number] < stopped[number]


@pytest.mark.parametrize("how", ["app", "configuration"])
def test_deploy_06_a_successor_that_does_not_come_up_leaves_the_old_workers(group: Group, how: str) -> None:
    """After a SIGHUP with a broken application or configuration the old ones serve; mended, it replaces them."""
    before = group.workers()
    if how == "app":
        group.broken.touch()
        expected = "A new worker did not come up"
    else:
        text = group.configuration.read_text()
        group.configuration.write_text("workers = (\n")
        expected = "The configuration can't be used"
    group.process.send_signal(signal.SIGHUP)
    eventually(lambda: expected in group.messages(), "a line that says so")
    assert before == group.workers()
    assert group.process.poll() is None

    if how == "app":
        group.broken.unlink()
    else:
        group.configuration.write_text(text)
    group.process.send_signal(signal.SIGHUP)
    eventually(lambda: group.are_two() and not group.workers() & before, "new workers")


def test_deploy_06_a_second_signal_begins_anew(
    shared_postgres: EmbeddedServer, own_redis: EmbeddedServer, database_template: str, tmp_path: Path
) -> None:
    """With one worker too: another SIGHUP comes while its successor starts, and somebody serves all the time."""
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        running_service(
            shared_postgres, own_redis, database_template, output=output, WEB_CONCURRENCY="1"
        ) as service,
    ):
        load = SteadyLoad(service.port)
        with load.running():
            for number in range(1, 4):
                service.process.send_signal(signal.SIGHUP)
                eventually(lambda: log.read_text().count("Booting worker") > number, "a successor")  # noqa: B023
            eventually(lambda: "All workers are replaced" in messages_of(log), "the end of the replacement")
            answered = len(load.answers)
            eventually(lambda: len(load.answers) > answered + 100, "more load")
        assert [] == load.failures
    messages = messages_of(log)
    assert any("was sent SIGKILL" in message for message in messages)  # the successor that did not serve yet
    assert 2 <= messages[: messages.index("service.stopped")].count("service.started")


def test_deploy_06_a_worker_that_can_not_be_replaced_is_no_reason_to_end_the_others(group: Group) -> None:
    """One is killed, and its successor fails to start: the other serves on, and another try is made later."""
    group.broken.touch()
    before = group.workers()
    killed = before.copy().pop()
    os.kill(int(killed), signal.SIGKILL)
    eventually(lambda: "Worker failed to boot. Next try" in group.messages(), "a line that says so")
    assert before - {killed} == group.workers()
    group.broken.unlink()
    eventually(group.are_two, "another worker")


def test_deploy_06_nobody_serves_is_the_end(tmp_path: Path) -> None:
    """Where no worker has come up the service ends, for whatever supervises it to see."""
    (tmp_path / "broken").touch()
    with running(tmp_path) as group:
        assert 3 == group.process.wait(WAIT_SECONDS)


def console_script() -> list[str]:
    """The console script of gunicorn."""
    return [str(Path(sys.executable).with_name("gunicorn"))]


@pytest.mark.parametrize("command", [None, console_script()])
def test_deploy_06_a_new_master_takes_over_and_counts_on(tmp_path: Path, command: list[str] | None) -> None:
    """SIGUSR2, however gunicorn was started: the old master has ended, counters go on, and it works again."""
    with running(tmp_path, command) as group:
        for number in range(5):
            group.get(f"/hit/{number}")
        assert 5.0 == group.hits()
        before = group.workers()
        group.process.send_signal(signal.SIGUSR2)
        assert 0 == group.process.wait(WAIT_SECONDS)
        eventually(lambda: group.are_two() and not group.workers() & before, "new workers")
        group.get("/hit/more")
        assert 6.0 == group.hits()
        assert "Traceback" not in group.messages()

        eventually(lambda: "Master has been promoted" in group.messages(), "the new master is the only one")
        eventually(lambda: len(group.members()) == 1 + 2, "what the old one has left behind has ended")
        (master,) = (one for one in group.members() if str(one.pid) not in group.workers())
        between = group.workers()
        master.send_signal(signal.SIGUSR2)
        eventually(lambda: not master.is_running() or master.status() == psutil.STATUS_ZOMBIE, "its end, too")
        eventually(lambda: group.are_two() and not group.workers() & between, "new workers again")
        assert 6.0 == group.hits()


def test_deploy_06_a_new_master_gets_the_sockets_of_systemd(tmp_path: Path) -> None:
    """A service that systemd started with a listening socket can be replaced like any other."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        # systemd names the process that the sockets are for; they are its descriptors from 3 on.
        program = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "{sys.executable}" -m gunicorn "$@"'
        command = ["bash", "-c", program, "bash"]
        with running(tmp_path, command, inherited=listener.fileno(), port=port) as group:
            before = group.workers()
            group.process.send_signal(signal.SIGUSR2)
            assert 0 == group.process.wait(WAIT_SECONDS)
            eventually(lambda: group.are_two() and not group.workers() & before, "new workers")


def test_deploy_06_a_new_master_that_does_not_come_up_leaves_the_old_one(group: Group) -> None:
    """SIGUSR2 with a broken application: the new master ends, the old one serves, and can be replaced later."""
    before = group.workers()
    group.broken.touch()
    group.process.send_signal(signal.SIGUSR2)
    eventually(lambda: "Reason: Worker failed to boot." in group.messages(), "the end of the new master")
    eventually(lambda: 3 == len(group.members()), "only the old ones are left")
    assert before == group.workers()
    group.broken.unlink()
    group.process.send_signal(signal.SIGUSR2)
    assert 0 == group.process.wait(WAIT_SECONDS)
    eventually(lambda: group.are_two() and not group.workers() & before, "new workers")


def test_deploy_06_the_master_was_written_for_this_gunicorn() -> None:
    """What is overridden, and what it reads, is gunicorn's inside: look at it again before another version."""
    assert "27.0.1" == gunicorn.__version__
    for name in (
        "reload",
        "manage_workers",
        "spawn_worker",
        "spawn_workers",
        "reap_workers",
        "wait_for_signals",
        "stop",
    ):
        assert name in vars(Master)
        assert name in vars(Arbiter)

"""Child processes end with their block, whatever they do about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from server.cli.signals import stop_signals
from server.development.processes import child_process, wait_until_ready
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
WAITS = ["sleep", "600"]


def python(program: str, *arguments: str) -> list[str]:
    """A command that runs a Python program."""
    return [sys.executable, "-c", textwrap.dedent(program), *arguments]


def ended(process: psutil.Process) -> bool:
    """Whether it ended, although nobody may have asked for its exit code yet."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_child_ends_with_its_block() -> None:
    """The signal that it is stopped with is the one that was named."""
    with child_process(WAITS, stop_with=signal.SIGINT) as process:
        assert process.poll() is None
    assert -signal.SIGINT == process.returncode


def test_a_stubborn_child_is_killed_with_its_own_children(tmp_path: Path) -> None:
    """What ignores the request is killed after its time, and what it started is killed with it."""
    program = """
        import pathlib, signal, subprocess, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        path = pathlib.Path(sys.argv[1])
        path.with_suffix(".new").write_text(str(child.pid))
        path.with_suffix(".new").rename(path)
        signal.pause()
    """
    ready = tmp_path / "ready"
    with child_process(python(program, str(ready)), stop_seconds=0.2) as process:
        eventually(ready.exists, "the child is ready")
        grandchild = psutil.Process(int(ready.read_text()))
    assert -signal.SIGKILL == process.returncode
    eventually(lambda: ended(grandchild), "the grandchild ends")


def test_a_signal_that_was_missed_is_sent_again(tmp_path: Path) -> None:
    """A program that is only starting may ignore the first request; it still ends before it is killed."""
    program = """
        import pathlib, signal, sys
        counted = 0
        def count(*_):
            global counted
            counted += 1
            if counted == 2:
                sys.exit(7)
        signal.signal(signal.SIGTERM, count)
        pathlib.Path(sys.argv[1]).touch()
        while True:
            signal.pause()
    """
    ready = tmp_path / "ready"
    with child_process(python(program, str(ready))) as process:
        eventually(ready.exists, "the child is ready")
    assert 7 == process.returncode


def test_a_hurried_stop_kills(tmp_path: Path) -> None:
    """A second Ctrl-C while we wait for a child's end kills it at once."""
    program = """
        import pathlib, signal, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path(sys.argv[1]).touch()
        signal.pause()
    """
    ready = tmp_path / "ready"
    with stop_signals(), child_process(python(program, str(ready)), stop_seconds=100) as process:
        eventually(ready.exists, "the child is ready")
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
    assert -signal.SIGKILL == process.returncode


def test_waiting_ends_when_the_child_does() -> None:
    """A child that ends instead of becoming ready is not waited for."""
    with child_process(["false"]) as process:
        assert not wait_until_ready(process, lambda: False, seconds=60)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_process_can_end_with_its_parent() -> None:
    """A parent that is killed takes along whoever asked for it."""
    program = """
        import os, signal, subprocess, sys
        child = "import os, signal; from server.development.processes import end_with_parent;" \\
                "end_with_parent(os.getppid()); print(os.getpid(), flush=True); signal.pause()"
        subprocess.run([sys.executable, "-c", child])
    """
    with subprocess.Popen(python(program), cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    eventually(lambda: ended(child), "the child ends")

"""Child processes that are certain to end: with their block, with a signal, and with this process itself."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from server.cli.signals import is_hurried, pause

Process = subprocess.Popen[bytes]

POLL_SECONDS = 0.02
STOP_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_AGAIN_SECONDS = 1.0


@contextlib.contextmanager
def child_process(
    command: Sequence[str],
    *,
    stop_with: signal.Signals = signal.SIGTERM,
    stop_seconds: float = STOP_SECONDS,
    output: IO[bytes] | int | None = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run a command for the length of the block.

    It leads a session of its own, so that the terminal's Ctrl-C reaches only us and the order of the shutdown
    is ours. On Linux it also ends when this process is killed.

    Args:
        command: the program and its arguments.
        stop_with: the signal that asks it to stop.
        stop_seconds: how long it may take to; after that its whole process group is killed.
        output: where stdout and stderr go; None for our own.
        environment: its environment; ours by default.
    """
    _libc()  # loaded before the fork
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
        preexec_fn=functools.partial(_prepare_child, os.getpid(), stop_with),  # noqa: PLW1509 - no locks in it
    )
    try:
        yield process
    finally:
        stop_process(process, stop_with, stop_seconds)


def stop_process(process: Process, how: signal.Signals, seconds: float) -> None:
    """Ask a child to stop; kill its process group if it did not within some seconds, or if we are hurried.

    It is asked again every second, with its own children: one that is just starting may miss the first time.
    """
    now = time.monotonic()
    deadline, next_time = now + seconds, now
    send = process.send_signal
    while process.poll() is None and now < deadline and not is_hurried():
        if now >= next_time:
            send(signal.SIGCONT)  # a paused process can't stop
            send(how)
            next_time += _AGAIN_SECONDS
            send = functools.partial(_signal_group, process)
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
    if process.poll() is None:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def wait_until_ready(process: Process, ready: Callable[[], bool], *, seconds: float) -> bool:
    """Poll a child until it is ready: False if it ended before, or if the seconds passed."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if ready():
            return True
        pause(POLL_SECONDS)
    return False


def end_with_parent(parent: int) -> None:
    """Make this process receive SIGTERM when its parent ends, if the system knows how to (Linux).

    Args:
        parent: the parent's process id; where that one has ended already, SIGTERM comes at once.
    """
    _ask_for_signal(signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _prepare_child(parent: int, death_signal: signal.Signals) -> None:
    _ask_for_signal(death_signal)
    if os.getppid() != parent:
        os._exit(1)  # it ended in the meantime, and no signal will come


def _ask_for_signal(number: signal.Signals) -> None:
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

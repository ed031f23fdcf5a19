"""Being asked to stop: noticed where we wait, never in the middle of something.

An exception raised by a signal handler would come between any two steps, of the standard library too: between
the start of a process and knowing of it, or between a lock and its release. Here a handler only takes a note,
and `pause`, with which everything waits, raises it. What was started then stops by leaving its `with` blocks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STDIN = 0
_TURN_SECONDS = 0.05

Result = TypeVar("Result")


class StopRequested(BaseException):
    """Somebody asked this process to stop: Ctrl-C, `kill`, or the terminal was closed."""


@dataclass(slots=True)
class _Note:
    asked: bool = False
    hurried: bool = False
    in_terminal: bool = False


_current: ContextVar[_Note | None] = ContextVar("stop_signals", default=None)


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Within the block, `pause` raises StopRequested after a stop signal, or when our terminal was closed.

    A SIGHUP that was ignored before stays ignored: that is `nohup`.
    """
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    note = _Note(in_terminal=hangs_up and _is_foreground())

    def take_note(number: int, _frame: FrameType | None) -> None:
        # A second Ctrl-C is a person who does not want to wait. Other signals come in pairs by themselves:
        # `kill` of a process group, in which make passes the signal on once more.
        note.hurried = note.hurried or (note.asked and number == signal.SIGINT)
        note.asked = True

    before = {
        number: signal.signal(number, take_note)
        for number in STOP_SIGNALS
        if number != signal.SIGHUP or hangs_up
    }
    token = _current.set(note)
    try:
        yield
    finally:
        _current.reset(token)
        for number, handler in before.items():
            signal.signal(number, handler)


def pause(seconds: float) -> None:
    """Sleep; the only place where being asked to stop is noticed, so what waits does it in short pauses.

    Raises:
        StopRequested: a stop signal came, within `stop_signals`.
    """
    time.sleep(seconds)
    note = _current.get()
    # When a terminal that was opened for `make run` alone is closed, only make gets the signal and keeps it.
    if note is not None and (note.asked or (note.in_terminal and not os.isatty(_STDIN))):
        raise StopRequested


def is_hurried() -> bool:
    """Whether Ctrl-C came a second time: what is being stopped is killed now."""
    note = _current.get()
    return note is not None and note.hurried


def _is_foreground() -> bool:
    """Whether a person's keyboard is for us: we have a terminal, and we are not in its background."""
    with contextlib.suppress(OSError):
        return os.tcgetpgrp(_STDIN) == os.getpgrp()
    return False


def run_interruptibly(function: Callable[[], Result]) -> Result:
    """Call a function that waits by itself, in a C library for instance, and notice a stop signal while it waits.

    It runs in a thread of its own, which is then left to itself: it ends with the process, or with the connection
    that it waits for.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_TURN_SECONDS)
        pause(0)
    if errors:
        raise errors[0]
    return results[0]

"""Being asked to stop, as an exception: whatever is started then stops by leaving its `with` blocks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TURN_SECONDS = 0.05

Result = TypeVar("Result")


class StopRequested(BaseException):
    """Somebody asked this process to stop: Ctrl-C, `kill`, or the terminal was closed."""


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within the block, the stop signals raise `StopRequested` in the main thread.

    Only the first one does, and each further SIGINT: that is a person who does not want to wait for the
    clean-up. Others come in pairs (`kill` of a process group in which make passes the signal on once more).
    A SIGHUP that was ignored before stays ignored: that is `nohup`.
    """
    asked = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if number in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            # It reached another thread, which holds nothing back. In this one it waits for `signals_held`.
            signal.pthread_kill(threading.get_ident(), number)
        elif not asked or number == signal.SIGINT:
            asked = True
            raise StopRequested

    before = {
        number: signal.signal(number, stop)
        for number in STOP_SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold the stop signals back until the block ends, so that what it starts is certain to be known."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_signals() -> None:
    """In a child process that was started while signals were held back: let them through again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def run_interruptibly(function: Callable[[], Result]) -> Result:
    """Call a function that waits inside a C library, where no Python signal handler gets a turn.

    It runs in a thread of its own while this one waits for it. A stop signal is raised here at once; the
    thread is left to itself, and ends with the process or with the connection that it waits for.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=getattr(function, "__name__", "interruptible"), daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_TURN_SECONDS)  # a signal just before an endless wait would not end it
    if errors:
        raise errors[0]
    return results[0]

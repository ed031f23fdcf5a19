"""Stop signals become an exception, once, and never between starting a process and knowing of it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from server.tools.signals import (
    STOP_SIGNALS,
    StopRequested,
    run_interruptibly,
    signals_held,
    stop_signals,
)


def send(number: signal.Signals) -> None:
    """Deliver a signal to this process, and let its handler run."""
    os.kill(os.getpid(), number)
    time.sleep(0)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_each_stop_signal_is_an_exception(number: signal.Signals) -> None:
    """Ctrl-C, kill and a closed terminal all leave the block in the same way."""
    with stop_signals(), pytest.raises(StopRequested):
        send(number)


def test_further_signals_do_not_disturb_the_clean_up() -> None:
    """Make passes a SIGTERM on that its process group got already: the second one changes nothing."""
    with stop_signals():
        with pytest.raises(StopRequested):
            send(signal.SIGTERM)
        send(signal.SIGTERM)
        send(signal.SIGHUP)


def test_a_second_interrupt_is_a_hurry() -> None:
    """Whoever presses Ctrl-C again does not want to wait."""
    with stop_signals():
        for _ in range(2):
            with pytest.raises(StopRequested):
                send(signal.SIGINT)


def test_nohup_is_respected() -> None:
    """A SIGHUP that is ignored already stays ignored; afterwards every handler is what it was."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            send(signal.SIGHUP)
        assert signal.SIG_IGN == signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_restored() -> None:
    """After the block every signal does what it did before."""
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_signals():
        pass
    assert before == [signal.getsignal(number) for number in STOP_SIGNALS]


def test_held_signals_come_at_the_end_of_the_block() -> None:
    """What the block starts is known before anybody is asked to stop it."""
    known: list[str] = []

    def start() -> None:
        with signals_held():
            send(signal.SIGTERM)
            known.append("process")

    with stop_signals(), pytest.raises(StopRequested):
        start()
    assert ["process"] == known


def test_signals_are_held_although_another_thread_takes_them() -> None:
    """The system may deliver a signal to any thread: it waits for the end of the block all the same."""
    known: list[str] = []
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()

    def start() -> None:
        with signals_held():
            assert other.ident is not None
            signal.pthread_kill(other.ident, signal.SIGTERM)
            time.sleep(0)
            known.append("process")

    try:
        with stop_signals(), pytest.raises(StopRequested):
            start()
    finally:
        end.set()
        other.join()
    assert ["process"] == known


def test_a_call_that_waits_in_c_is_left_at_once() -> None:
    """A database that does not answer keeps nobody from stopping."""
    end = threading.Event()
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        end.wait()

    def interrupt() -> None:
        waiting.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    try:
        with stop_signals(), pytest.raises(StopRequested):
            run_interruptibly(wait)
    finally:
        end.set()


def test_an_interruptible_call_is_a_call() -> None:
    """Its result comes back, and so does what it raises."""
    assert 42 == run_interruptibly(lambda: 42)
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda: 1 // 0)

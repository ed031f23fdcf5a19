"""Stop signals are noticed where something waits, and nowhere else."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from server.cli.signals import (
    STOP_SIGNALS,
    StopRequested,
    is_hurried,
    pause,
    run_interruptibly,
    stop_signals,
)


def send(number: signal.Signals) -> None:
    """Deliver a signal to this process."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_each_stop_signal_ends_a_pause(number: signal.Signals) -> None:
    """Ctrl-C, kill and a closed terminal are all noticed in the same way."""
    with stop_signals():
        pause(0)
        send(number)
        with pytest.raises(StopRequested):
            pause(0)


def test_nothing_is_interrupted_between_two_pauses() -> None:
    """What lies between two pauses is done completely."""
    done = []

    def start() -> None:
        send(signal.SIGTERM)
        done.append("started a process")
        done.append("noted its id")
        pause(0)

    with stop_signals(), pytest.raises(StopRequested):
        start()
    assert ["started a process", "noted its id"] == done


def test_only_a_second_interrupt_is_a_hurry() -> None:
    """Make passes a SIGTERM on that its process group got already; a person presses Ctrl-C twice."""
    with stop_signals():
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
            send(number)
            assert not is_hurried()
        send(signal.SIGINT)
        assert is_hurried()
    with stop_signals():
        send(signal.SIGINT)
        assert not is_hurried()
        send(signal.SIGINT)
        assert is_hurried()
    assert not is_hurried()


def test_nohup_is_respected() -> None:
    """A SIGHUP that is ignored already stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            send(signal.SIGHUP)
            pause(0)
        assert signal.SIG_IGN == signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_restored() -> None:
    """After the block every signal does what it did before."""
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_signals():
        assert before != [signal.getsignal(number) for number in STOP_SIGNALS]
    assert before == [signal.getsignal(number) for number in STOP_SIGNALS]


def test_a_call_that_waits_by_itself_is_left() -> None:
    """A database that does not answer keeps nobody from stopping."""
    end, waiting = threading.Event(), threading.Event()

    def wait() -> None:
        waiting.set()
        end.wait()

    def interrupt() -> None:
        waiting.wait()
        send(signal.SIGTERM)

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

"""What clients notice of a rolling restart: failed requests, and the longest time in which nobody got an answer.

Two workers serve as in production. Clients ask `/livez` one request after another, most on connections that they keep,
some with pauses in which a predecessor may close theirs. Then SIGHUP replaces the workers, or SIGUSR2 the master.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

from bench.harness.machine import Cores
from bench.harness.subjects import running, service
from bench.harness.table import as_text
from bench.harness.world import world
from server.errors import CommandError

HEADINGS = ("signal", "seconds", "answers", "failed", "longest gap, ms")
_HOST = "127.0.0.1"
# Seconds between two requests of each client: hard workers, and some that think between two clicks.
_PAUSES = (0.0, 0.0, 0.02, 0.1, 0.5, 1.2)
_ONE_SHOT_PAUSE = 0.02  # this one connects anew each time
_ANYWHERE = Cores(frozenset(), frozenset())
_DEADLINE_SECONDS = 120.0
_CALM_SECONDS = 1.0


@dataclass
class SteadyLoad:
    """Clients that ask again and again; what they don't get is written down.

    Attributes:
        failures: of requests, in words.
        answers: when an answer came, or a failure.
    """

    port: int
    path: str = "/livez"
    failures: list[str] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """All clients for the length of the block."""
        clients = [threading.Thread(target=self._ask, args=(pause,)) for pause in _PAUSES]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self._stopped.set()
            for client in clients:
                client.join(_DEADLINE_SECONDS)

    def _ask(self, pause: float) -> None:
        headers = {"Connection": "close"} if pause == _ONE_SHOT_PAUSE else {}
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=30)
        while not self._stopped.is_set():
            try:
                connection.request("GET", self.path, headers=headers)
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(str(response.status))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            self.answers.append(time.monotonic())
            self._stopped.wait(pause)
        connection.close()

    def longest_gap(self) -> float:
        """The longest time between two answers, whoever got them, in seconds."""
        return max(after - before for before, after in itertools.pairwise(sorted(self.answers)))


def print_restarts() -> None:
    """Restart a service of our own under load in both ways, and print a table."""
    rows = []
    with world(readers=1, cores=_ANYWHERE) as surroundings:
        for how in (signal.SIGHUP, signal.SIGUSR2):
            launch = service(surroundings, name=f"service-{how.name}", workers=2)
            with running(launch, surroundings) as subject:
                master = psutil.Process(subject.process.pid)
                _wait(lambda: len(master.children()) == 2, "two workers")  # noqa: B023 - used at once
                load = SteadyLoad(subject.port)
                with load.running():
                    time.sleep(_CALM_SECONDS)
                    began = time.monotonic()
                    successor = _restart(master, how)
                    seconds = time.monotonic() - began
                    time.sleep(_CALM_SECONDS)
                if successor is not None:
                    successor.terminate()
                    psutil.wait_procs([successor], timeout=_DEADLINE_SECONDS)
            rows.append(
                (
                    how.name,
                    f"{seconds:.1f}",
                    str(len(load.answers)),
                    str(len(load.failures)),
                    f"{1000 * load.longest_gap():.0f}",
                )
            )
    sys.stdout.write(as_text(HEADINGS, rows) + "\n")


def _restart(master: psutil.Process, how: signal.Signals) -> psutil.Process | None:
    """Restart, and wait until the old processes have ended; return the new master if there is one."""
    old = {child.pid for child in master.children()}
    master.send_signal(how)
    if how == signal.SIGHUP:
        _wait(lambda: not old & {child.pid for child in master.children()}, "new workers")
        return None
    _wait(lambda: len(master.children()) > len(old), "a new master")
    successor = next(child for child in master.children() if child.pid not in old)
    _wait(lambda: master.status() == psutil.STATUS_ZOMBIE, "the end of the old master")
    return successor


def _wait(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise CommandError(f"{what}: not within {_DEADLINE_SECONDS:.0f} s")
        time.sleep(0.02)

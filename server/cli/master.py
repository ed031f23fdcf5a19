"""gunicorn's master process, changed so that a restart leaves no gap.

gunicorn's own SIGHUP stops the old workers as soon as the new ones are forked, seconds before these serve. Its SIGUSR2
leaves two masters side by side. And one worker that fails to start ends the whole service. Here a successor serves
before its predecessor is asked to stop, and a successor that does not start leaves the running workers alone.

gunicorn has no setting for the class of its master, and its hooks are not enough: so `config/gunicorn.py` changes the
master's class in its first hook. `tests/test_restarts.py` names the version that this was written for.

gunicorn's logger has no handlers of its own: its lines have the form of all others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from typing import Any, Final

from gunicorn import systemd  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.errors import HaltServer  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

# A worker that does not serve after so long is taken for one that never will.
BOOT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1  # while a successor starts; otherwise gunicorn looks once a second
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


def is_serving(worker: Any) -> bool:
    """Whether a worker answers requests, as its first heartbeat says, which aiohttp's worker sends when it does.

    A heartbeat sets the modification time of a file to the monotonic clock's; before it, that is the wall clock's time
    of the file's making. The time of the last change is the wall clock's always.
    """
    try:
        times = os.fstat(worker.tmp.fileno())
    except (OSError, ValueError):  # closed: the worker has ended
        return False
    return bool(times.st_mtime < times.st_ctime - 1.0)


class Master(Arbiter):  # type: ignore[misc]
    """An arbiter whose workers are replaced one by one: the successor serves, then the predecessor drains.

    Attributes:
        predecessors: process ids of the workers that are to be replaced.
    """

    predecessors: set[int]
    _leaving: set[int]
    _starting: dict[int, float]  # with the time of their fork
    _started: float
    _pause: float
    _not_before: float
    _has_asked: bool
    _is_stopping: bool

    @classmethod
    def adopt(cls, arbiter: Arbiter) -> None:
        """Make a gunicorn master one of ours. Called before it has any worker, from the hook `on_starting`."""
        arbiter.__class__ = cls
        arbiter.begin()

    def begin(self) -> None:
        """Before the first worker."""
        self.predecessors = set()
        self._leaving = set()
        self._starting = {}
        self._started = time.monotonic()
        self._pause = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0
        self._has_asked = False
        self._is_stopping = False

    # SIGHUP

    def reload(self) -> None:
        """Read the configuration again, and begin to replace the workers; with a bad configuration, neither."""
        former = self.app.cfg
        try:
            self.app.reload()
            self.setup(self.app)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the service goes on, whatever is wrong
            self.app.cfg = former
            self.setup(self.app)
            self.log.error("The configuration can't be used, nothing was changed: %r", error)  # noqa: TRY400 - short
            return
        self.log.reopen_files()
        self.cfg.on_reload(self)
        self._stats["reloads"] += 1
        self._not_before, self._pause = 0.0, _FIRST_PAUSE_SECONDS
        self.predecessors = self.WORKERS.keys() - self._leaving
        if self.WORKERS:
            self.log.info("Replacing %d workers", len(self.predecessors))

    def manage_workers(self) -> None:
        """Called at least once a second: take the next step of a replacement, or keep the number of workers."""
        self._leaving &= self.WORKERS.keys()
        self.predecessors &= self.WORKERS.keys()
        self._starting = {
            pid: at
            for pid, at in self._starting.items()
            if pid in self.WORKERS and not is_serving(self.WORKERS[pid])
        }
        if self.predecessors:
            self._replace()
        elif not self._leaving:
            super().manage_workers()
        elif len(self.WORKERS) - len(self._leaving) < self.num_workers and not self._is_pausing():
            self.spawn_worker()
        self._take_over()

    def _replace(self) -> None:
        """One successor at a time: it starts, it serves, its predecessor leaves."""
        for pid, began in self._starting.items():
            if pid not in self.predecessors:
                if time.monotonic() - began > BOOT_SECONDS:
                    self._leave(pid, signal.SIGKILL)
                    self._keep_predecessors("it does not serve")
                return
        if self._leaving:
            return
        if len(self.WORKERS) <= self.num_workers:
            self.spawn_worker()
            return
        # After a second SIGHUP, first those of the first one that do not serve yet.
        first = min(self.predecessors, key=lambda pid: (pid not in self._starting, self.WORKERS[pid].age))
        self.predecessors.remove(first)
        self._leave(first, signal.SIGKILL if first in self._starting else signal.SIGTERM)
        if not self.predecessors:
            self.log.info("All workers are replaced")

    def _leave(self, pid: int, how: signal.Signals) -> None:
        self._leaving.add(pid)
        self.kill_worker(pid, how)

    def _keep_predecessors(self, why: str) -> None:
        self.predecessors.clear()
        self.log.error("A new worker did not come up (%s); the old ones go on serving", why)

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait for a signal, or for the time of the next look."""
        is_waiting = self.predecessors or self._leaving or self.master_pid
        signals: list[int] = super().wait_for_signals(min(timeout, _LOOK_SECONDS) if is_waiting else timeout)
        return signals

    # Workers that do not start

    def spawn_workers(self) -> None:
        """Start the workers that are missing, but not again and again at once where they fail."""
        if not self._is_pausing():
            super().spawn_workers()

    def spawn_worker(self) -> Any:
        """Start a worker. Where the system can't, those that serve go on, and it is tried again later."""
        try:
            pid = super().spawn_worker()
        except OSError as error:  # no process, or no file for its heartbeat
            self._failed_to_start(HaltServer(f"No worker can be started: {error.strerror}.", 1))
            return None
        self._starting[pid] = time.monotonic()
        return pid

    def reap_workers(self) -> None:
        """Reap the workers that have ended. One that failed to start ends the service only where no other serves."""
        while True:
            before = dict(self.WORKERS)
            failure = None
            try:
                super().reap_workers()
            except HaltServer as halt:
                failure = halt
            gone = before.keys() - self.WORKERS.keys()
            if failure is not None:
                for pid in gone:
                    before[pid].tmp.close()
                    self.cfg.child_exit(self, before[pid])
                self._failed_to_start(failure)
            elif gone & self._starting.keys() - self._leaving:
                self._failed_to_start(HaltServer("Worker ended before it served."), is_final=False)
            for pid in gone:
                self._starting.pop(pid, None)
            if failure is None:
                return

    def _failed_to_start(self, failure: HaltServer, *, is_final: bool = True) -> None:
        """Pause, longer each time. While the service stops it is of no account, and must not cut that short.

        Raises:
            HaltServer: no worker serves, and none will: the service's supervisor has to restart it.
        """
        if self._is_stopping:
            return
        if is_final and not any(map(is_serving, self.WORKERS.values())):
            raise failure
        if self.predecessors:
            self._keep_predecessors(failure.reason)
        else:
            self.log.error("%s Next try in %d s", failure.reason, self._pause)
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def _is_pausing(self) -> bool:
        return time.monotonic() < self._not_before

    # SIGUSR2

    def reexec(self) -> None:
        """Start a new master, unless the end of this one would end the container with all that is in it."""
        if self.pid == 1:
            self.log.error("SIGUSR2 is for a master that is not process 1; SIGHUP replaces the workers")
            return
        super().reexec()

    def _take_over(self) -> None:
        """After SIGUSR2, as the new master: ask the old one to stop when all workers serve.

        Raises:
            HaltServer: they do not come up; the old master goes on.
        """
        if not self.master_pid or self._has_asked:
            return
        if len(self.WORKERS) >= self.num_workers and all(map(is_serving, self.WORKERS.values())):
            self._has_asked = True
            if self.master_pid == os.getppid():
                self.log.info("All workers serve; the old master (pid: %s) is asked to stop", self.master_pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.master_pid, signal.SIGTERM)
        elif time.monotonic() - self._started > BOOT_SECONDS:
            raise HaltServer("The workers do not serve; the old master goes on.", self.WORKER_BOOT_ERROR)

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers; where a new master has taken over, systemd is notified of its process id."""
        self._is_stopping = True
        if self.reexec_pid:
            systemd.sd_notify(f"MAINPID={self.reexec_pid}", self.log)
        super().stop(graceful)


def repeat_command(arbiter: Arbiter) -> None:
    """Make SIGUSR2 run the command that this process was started with, on its sockets. For the hook `pre_exec`.

    gunicorn runs `sys.argv` again. Of `python -m gunicorn` that is the path of a file in gunicorn's own folder, which
    then comes first in the search for modules, where its `http` package hides the standard one. And it tells the new
    master to look for systemd's sockets at the numbers that they had at the start, which they have no more.
    """
    arbiter.START_CTX["args"] = [sys.executable, *sys.orig_argv[1:]]
    arbiter.systemd = False  # in this process, which names the sockets by their present numbers now


class GunicornLogger(Logger):  # type: ignore[misc]
    """Leaves gunicorn's records to the root logger, which `configure_logging` has set up; no access log.

    The middleware writes the line of each request. An `--access-logfile -`, which platforms add by
    GUNICORN_CMD_ARGS and which beats every configuration file, would put a line of plain text beside it.
    """

    def setup(self, cfg: Any) -> None:
        """Called at start and at each reload of the configuration."""
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(self.loglevel)
        self.access_log.handlers.clear()
        self.access_log.disabled = True
        self._access_log_enabled = False

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Write nothing."""

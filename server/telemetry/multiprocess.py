"""The directory in which worker processes share their metrics.

prometheus_client decides when it is imported, by the environment variable PROMETHEUS_MULTIPROC_DIR, whether
values live in files of that directory or in memory. So the directory is prepared before anything imports it,
and this module does not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from server.telemetry.file_lock import hold_lock

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LOCK = "files.lock"  # of who reads the workers' files, and of who puts some of them together
_PREFIX = "mastery-metrics-"
_OWNER = "owner.pid"
_OURS = ("*.db", "*.tmp", "*.json", "*.json.*", "last-good-*", LOCK, _OWNER)


def multiprocess_directory() -> Path | None:
    """Where the workers share their metrics; None where this process is the only one.

    Read from the environment, as prometheus_client itself does: the two must agree.
    """
    path = os.environ.get(VARIABLE, "")
    return Path(path) if path else None


def prepare_directory(*, fresh: bool = False) -> Path:
    """Make the directory and empty it of an earlier run's metrics; called once, before the first worker.

    Args:
        fresh: take a new private one even where the environment names one, which another master process still
            uses.

    Returns:
        The directory that the environment names, or a new private one, which it names from now on.
    """
    given = multiprocess_directory()
    if given is not None and not fresh:
        given.mkdir(parents=True, exist_ok=True)
        for pattern in _OURS:
            for stale in given.glob(pattern):
                stale.unlink(missing_ok=True)
        return given
    parent = Path(memory_directory() or tempfile.gettempdir())
    _remove_ownerless(parent)
    private = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    owner = private / f"{_OWNER}.new"
    os.write(hold_lock(owner), str(os.getpid()).encode())
    owner.rename(private / _OWNER)  # when it is there, it is locked
    os.environ[VARIABLE] = str(private)
    return private


def remove_directory() -> None:
    """Remove the directory if `prepare_directory` made it for this process; called after the last worker."""
    directory = multiprocess_directory()
    if directory is None:
        return
    try:
        owner = (directory / _OWNER).read_text()
    except OSError:
        return
    if owner == str(os.getpid()):
        shutil.rmtree(directory, ignore_errors=True)


def _remove_ownerless(parent: Path) -> None:
    """Remove the private directories of masters that were killed, with all their workers, before they could do it."""
    for directory in parent.glob(f"{_PREFIX}*"):
        try:
            if not (directory / _OWNER).exists():
                continue
            lock = hold_lock(directory / _OWNER)
        except OSError:  # it is in use, or another user's
            continue
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def has_other_workers(directory: Path) -> bool:
    """Whether another living worker writes its metrics there."""
    ours = f"_{os.getpid()}.db"
    return any(not path.name.endswith(ours) for path in directory.glob("gauge_live*_*.db"))


def forget_worker(pid: int) -> None:
    """Drop what only a living process has, such as its requests in flight; what it counted stays, with the others'."""
    directory = multiprocess_directory()
    if directory is not None:
        # Not before it is needed: see the module's docstring.
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

        from server.telemetry.retired_files import retire  # noqa: PLC0415

        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        retire(directory, pid)


def memory_directory() -> str | None:
    """A directory that lives in memory, or None for the usual temporary one."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - what we make in it has random names and is private
    return str(shared_memory) if shared_memory.is_dir() and os.access(shared_memory, os.W_OK) else None

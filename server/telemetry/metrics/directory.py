"""The directory in which worker processes share their metrics, and the locks on it.

prometheus_client decides when it is imported, by the environment variable PROMETHEUS_MULTIPROC_DIR, whether
values live in files of that directory or in memory. So the directory is prepared before anything imports it,
and this module does not. The locks are flock's: the system releases them when their process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.001
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LOCK = "files.lock"  # for reading the workers' files, and for joining some of them
# In the environment of a master that replaces another: the descriptor of that one's lock.
INHERITED_LOCK: Final = "MASTERY_METRICS_LOCK"
_PREFIX = "mastery-metrics-"
_OWNER = "owner.pid"
_OURS = ("*.db", "*.tmp", "*.json", "*.json.*", "last-good-*", LOCK, _OWNER)


@contextmanager
def exclusive_lock(file: Path, *, seconds: float) -> Iterator[None]:
    """Hold an exclusive lock. The file is created where it is missing.

    Raises:
        TimeoutError: another process has held it for `seconds`; it may have been stopped.
    """
    descriptor = _open(file)
    try:
        if not _acquire(descriptor, fcntl.LOCK_EX, seconds):
            raise TimeoutError(f"{file} is locked")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared_lock(file: Path, *, seconds: float) -> Iterator[None]:
    """Hold a shared lock. Gives up after `seconds`, or where there can be no lock file, and proceeds without."""
    try:
        descriptor = _open(file)
    except OSError:  # the folder is missing, or the disk is full
        yield
        return
    try:
        _acquire(descriptor, fcntl.LOCK_SH, seconds)
        yield
    finally:
        os.close(descriptor)


def hold_lock(file: Path) -> int:
    """Take the lock of a file or a folder until this process and those that it forks have ended.

    Returns:
        The open descriptor; the lock is released with the last copy of it.

    Raises:
        BlockingIOError: another process has it.
    """
    descriptor = os.open(file, os.O_RDONLY) if file.is_dir() else _open(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def _acquire(descriptor: int, how: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


@dataclass(frozen=True, slots=True)
class _Claim:
    """The claim of a master and its workers on a directory, which no other master may empty or remove.

    Attributes:
        pid: the master's process id.
        descriptor: of what is locked, for as long as one of these processes lives.
        is_private: whether the directory was made by a master, and goes with the last one.
    """

    directory: Path
    pid: int
    descriptor: int
    is_private: bool


_claim: _Claim | None = None


def multiprocess_directory() -> Path | None:
    """Where the workers share their metrics; None where this process is the only one.

    Read from the environment, as prometheus_client itself does: the two must agree.
    """
    path = os.environ.get(VARIABLE, "")
    return Path(path) if path else None


def is_prepared() -> bool:
    """Whether this process has prepared a directory that the environment names."""
    return _claim is not None and _claim.pid == os.getpid() and _claim.directory == multiprocess_directory()


def prepare_directory(*, fresh: bool = False) -> Path | None:
    """Make the directory and empty it of an earlier run's metrics; called once, before the first worker.

    A master that replaces another (`pass_on_directory`) keeps that one's directory and counters. A directory that
    another service uses is left alone.

    Args:
        fresh: take a new private one even where the environment names one, which another master process still
            uses.

    Returns:
        The directory that the environment names, or a new private one, which it names from now on. None if none can
        be made; each worker has its own metrics in that case.
    """
    global _claim  # noqa: PLW0603 - as the environment that it belongs to
    given = multiprocess_directory()
    inherited = os.environ.pop(INHERITED_LOCK, "")
    if given is not None and inherited:
        claim = _inherit(given, inherited)
        if claim is not None:
            _claim = claim
            return given
    try:
        if given is not None and not fresh and _use_given(given):
            return given
        return _make_private()
    except OSError as error:
        os.environ.pop(VARIABLE, None)
        log.error("metrics.no_directory", error=error.strerror, detail="each worker has metrics of its own")  # noqa: TRY400
        return None


def _use_given(directory: Path) -> bool:
    """Claim and empty the directory that the environment names; False if that can't be."""
    global _claim  # noqa: PLW0603 - see above
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if _claim is None or _claim.directory != directory or _claim.pid != os.getpid():
            _claim = _Claim(directory, os.getpid(), hold_lock(directory), is_private=False)
        for pattern in _OURS:
            for stale in directory.glob(pattern):
                stale.unlink(missing_ok=True)
    except OSError as error:
        reason = "another service uses it" if isinstance(error, BlockingIOError) else error.strerror
        log.error(  # noqa: TRY400 - an operator's mistake, not ours
            "metrics.directory_not_used", variable=VARIABLE, directory=str(directory), reason=reason,
            detail="a private directory is used instead",
        )  # fmt: skip
        return False
    return True


def _make_private() -> Path:
    global _claim  # noqa: PLW0603 - see above
    parent = Path(memory_directory() or tempfile.gettempdir())
    _remove_ownerless(parent)
    private = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    owner = private / f"{_OWNER}.new"
    lock = hold_lock(owner)
    owner.rename(private / _OWNER)  # when it is there, it is locked
    _claim = _Claim(private, os.getpid(), lock, is_private=True)
    os.environ[VARIABLE] = str(private)
    return private


def pass_on_directory(environment: dict[str, str]) -> None:
    """Let the master that this process becomes by `exec` go on with its directory.

    Args:
        environment: of the new master; the directory and its lock are put there.
    """
    directory = multiprocess_directory()
    if _claim is None or _claim.directory != directory:
        return
    os.set_inheritable(_claim.descriptor, True)
    environment[VARIABLE] = str(directory)
    environment[INHERITED_LOCK] = str(_claim.descriptor)


def _inherit(directory: Path, descriptor: str) -> _Claim | None:
    """The claim of the master before this one; None if the descriptor is not that of its lock."""
    lock = int(descriptor) if descriptor.isdecimal() else -1
    for locked, is_private in ((directory / _OWNER, True), (directory, False)):
        with contextlib.suppress(OSError):
            if os.path.samestat(locked.stat(), os.fstat(lock)):
                os.set_inheritable(lock, False)
                return _Claim(directory, os.getpid(), lock, is_private)
    return None


def remove_directory() -> None:
    """Release the directory after the last worker has ended; a private one is removed by its last master."""
    global _claim  # noqa: PLW0603 - see above
    claim = _claim
    if claim is None or claim.pid != os.getpid():
        return
    _claim = None
    os.close(claim.descriptor)
    if not claim.is_private:
        return
    try:
        lock = hold_lock(claim.directory / _OWNER)
    except OSError:  # a new master has taken over, or a worker has not ended yet
        return
    shutil.rmtree(claim.directory, ignore_errors=True)
    os.close(lock)


def _remove_ownerless(parent: Path) -> None:
    """Remove the private directories of masters that were killed, with all their workers, before they removed them."""
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


def memory_directory() -> str | None:
    """A directory that lives in memory, or None for the usual temporary one."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - what we make in it has random names and is private
    return str(shared_memory) if shared_memory.is_dir() and os.access(shared_memory, os.W_OK) else None

"""Locks between processes on a file, which the system takes back from whoever ends, however it ends (flock)."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.001


@contextmanager
def exclusive_lock(file: Path, *, seconds: float) -> Iterator[None]:
    """Nobody else has the file's lock during the block; the file is made where it is missing.

    Raises:
        TimeoutError: somebody has kept it for so many seconds: a process that was stopped, perhaps.
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
        The open descriptor; the lock is given back with the last copy of it.

    Raises:
        BlockingIOError: somebody else has it.
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

"""The files in which a worker's metrics live, so that neither a full disk nor a missing folder can end the worker.

prometheus_client makes its files longer without asking for the disk's blocks. On a full one the first write to a new
page is a SIGBUS, which no code can catch. Here the blocks are allocated before a page is used. If there are none, the
values stay in this process's memory: it serves and counts on, but the other workers don't see its numbers until
`repair` has found room again.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
from pathlib import Path
from typing import IO, Any

import structlog
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, _read_all_values

log = structlog.get_logger(__name__)

_FIRST_BYTES = 1 << 16  # as prometheus_client's own
_HEADER_BYTES = 8
_ENTRY_BYTES = 4 + 8 + 16  # beside its key: the key's length, at most so much padding, a value and its time
_used_bytes = struct.Struct("i")  # the first number of a file
_REASONS = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.ENOENT: "missing",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EROFS: "denied",
}
FAULTS = ("full", "missing", "denied", "failed")
_open_files: dict[str, ValueFile] = {}
_reported: list[str | None] = [None]  # the fault that was logged last


class ValueFile(MmapedDict):
    """prometheus_client's file of values, with disk blocks allocated before their pages are touched.

    Args:
        filename: of the file; what it holds already is kept.
        must_share: raise instead of going on in memory.

    Attributes:
        path: of the file.
        fault: why the values are only in this process's memory: `full`, `missing`, `denied` or `failed`; else None.

    Raises:
        OSError: it must share, and can't.
    """

    def __init__(self, filename: str, *, must_share: bool = False) -> None:
        self.path = Path(filename)
        self.fault: str | None = None
        self._must_share = must_share
        self._positions: dict[str, int] = {}
        self._capacity, self._used = _FIRST_BYTES, _HEADER_BYTES
        self._f: IO[bytes] | None = None  # type: ignore[assignment]
        self._m: mmap.mmap | None = None  # type: ignore[assignment]
        if not must_share:
            _open_files[filename] = self
        try:
            self._open()
        except OSError as error:
            if must_share:
                raise
            self._use_memory(error)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        file = self.path.open("a+b")
        try:
            capacity = max(os.fstat(file.fileno()).st_size, _FIRST_BYTES)
            allocate(file.fileno(), capacity)
            pages = mmap.mmap(file.fileno(), capacity)
            used = max(_used_bytes.unpack_from(pages)[0], _HEADER_BYTES)
            positions = {key: place for key, _, _, place in _entries(pages, used)}
        except BaseException:
            file.close()
            raise
        pages[: _used_bytes.size] = _used_bytes.pack(used)
        self._f, self._m, self._capacity, self._used, self._positions = file, pages, capacity, used, positions

    def _init_value(self, key: str) -> None:
        needed = self._used + len(key.encode()) + _ENTRY_BYTES
        if needed > self._capacity:
            self._grow(needed)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self, needed: int) -> None:
        while self._capacity < needed:
            self._capacity *= 2
        if self._f is None:
            self._m = self._copied(mmap.mmap(-1, self._capacity))
            return
        try:
            allocate(self._f.fileno(), self._capacity)
            self._m = mmap.mmap(self._f.fileno(), self._capacity)
        except OSError as error:
            if self._must_share:
                raise
            self._use_memory(error)

    def _use_memory(self, error: OSError) -> None:
        self._m = self._copied(mmap.mmap(-1, self._capacity))
        if self._f is not None:
            self._f.close()
            self._f = None
        self._note(_reason(error))

    def _copied(self, pages: mmap.mmap) -> mmap.mmap:
        """These pages, with the present content copied into them."""
        if self._m is not None:
            pages[: self._used] = self._m[: self._used]
        else:
            pages[: _used_bytes.size] = _used_bytes.pack(self._used)
        return pages

    def repair(self) -> bool:
        """Make the file anew, with all values, if it is missing; return whether it had existed."""
        if self._f is not None and self._is_in_place(self._f.fileno()):
            return False
        was_gone = self._f is not None
        draft = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(draft.open("w+b"))
                allocate(file.fileno(), self._capacity)
                pages = self._copied(mmap.mmap(file.fileno(), self._capacity))
                draft.replace(self.path)
                stack.pop_all()
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            self._use_memory(error)
            return was_gone
        if self._f is not None:
            self._f.close()
        self._f, self._m = file, pages
        self._note(None)
        return was_gone

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(descriptor))
        except OSError:
            return False

    def _note(self, fault: str | None) -> None:
        self.fault = fault
        _report(self.path.parent)

    def items(self) -> list[tuple[str, float]]:
        """The keys and values of the file."""
        return [(key, self.read_value(key)[0]) for key in list(self._positions)]  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the file; it stays where it is."""
        _open_files.pop(str(self.path), None)
        if self._m is not None:
            self._m.close()
            self._m = None
        if self._f is not None:
            self._f.close()
            self._f = None


def install() -> None:
    """Keep the values of every metric that is declared from now on in such files."""
    module: Any = values
    module.MmapedDict = ValueFile


def repair_files() -> None:
    """Put this process's files back where they are missing. Costs two system calls a file; never raises."""
    gone = [file.path for file in list(_open_files.values()) if file.repair()]
    if gone:
        log.warning(
            "metrics.files_missing", directory=str(gone[0].parent), detail="they were removed, and made anew"
        )


def unshared_files() -> list[ValueFile]:
    """The files of this process whose values no other process can read."""
    return [file for file in list(_open_files.values()) if file.fault is not None]


def sharing_fault() -> str | None:
    """Why this process's metrics are not shared with the other workers, in a short word; None if they are."""
    return next((file.fault for file in list(_open_files.values()) if file.fault is not None), None)


def allocate(descriptor: int, size: int) -> None:
    """Make a file at least so many bytes long, with blocks of the disk behind all of them.

    Raises:
        OSError: the disk, or what we may use of it, is full.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    at = os.fstat(descriptor).st_size  # macOS
    while at < size:
        at += os.pwrite(descriptor, bytes(size - at), at)


def _report(directory: Path) -> None:
    """Log that a fault began or ended, once for all files."""
    fault = sharing_fault()
    if fault == _reported[0]:
        return
    _reported[0] = fault
    if fault is None:
        log.info("metrics.shared_again", directory=str(directory))
    else:
        log.error(
            "metrics.not_shared", reason=fault, directory=str(directory),
            detail="the service goes on; this worker's metrics are in its own answers only, until there is room",
        )  # fmt: skip


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, "failed")


def _entries(pages: mmap.mmap, used: int) -> list[tuple[str, float, float, int]]:
    """The entries of a file.

    Raises:
        OSError: it is broken, and can't be continued.
    """
    try:
        return list(_read_all_values(pages, used))  # type: ignore[no-untyped-call]
    except (RuntimeError, struct.error, UnicodeDecodeError):
        raise OSError(errno.EIO, "broken") from None

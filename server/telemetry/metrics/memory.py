"""What memory this process uses, in the four numbers that operators know from other runtimes."""

from __future__ import annotations

import ctypes
import functools
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Memory of this process in bytes; 0 where the platform does not tell.

    Attributes:
        rss_bytes: resident set: what the platform's memory limit counts.
        heap_used_bytes: resident private memory: Python objects, buffers and stacks.
        heap_total_bytes: private memory that is reserved, resident or not.
        external_bytes: what C code holds through malloc: drivers' buffers, TLS, and Python objects above 512
            bytes.
    """

    rss_bytes: int
    heap_used_bytes: int
    heap_total_bytes: int
    external_bytes: int


def read_memory() -> ProcessMemory:
    """The memory of this process now: from /proc on Linux; elsewhere the peak of the resident set alone."""
    try:
        status = _STATUS.read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return ProcessMemory(peak if sys.platform == "darwin" else peak * 1024, 0, 0, 0)
    kilobytes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in status.splitlines())
        if name in {"VmRSS", "RssAnon", "VmData"}
    }
    return ProcessMemory(
        rss_bytes=kilobytes.get("VmRSS", 0) * 1024,
        heap_used_bytes=kilobytes.get("RssAnon", 0) * 1024,
        heap_total_bytes=kilobytes.get("VmData", 0) * 1024,
        external_bytes=_allocated_by_c(),
    )


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of glibc: see mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


@functools.cache
def _mallinfo2() -> Callable[[], _Mallinfo2] | None:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):  # another C library, or glibc before 2.33
        return None
    function.restype = _Mallinfo2
    return function


def return_free_memory() -> None:
    """Give memory that malloc keeps for later back to the system, where the C library can (glibc).

    It does so by itself only from the top of its heap: one small object behind large ones keeps all of them.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    function.argtypes = (ctypes.c_size_t,)
    return function


def _allocated_by_c() -> int:
    mallinfo2 = _mallinfo2()
    if mallinfo2 is None:
        return 0
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)

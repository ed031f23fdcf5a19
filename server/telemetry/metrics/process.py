"""What this process uses: open files, and memory in the four numbers that other runtimes report.

Beside that, the Python that it runs on, and how much memory all processes here may use before the system kills one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_DESCRIPTOR_FOLDERS = ("/proc/self/fd", "/dev/fd")  # Linux, macOS
_STATUS = Path("/proc/self/status")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def count_open_files() -> int:
    """How many descriptors are open: connections, files, pipes; 0 where the system does not report it."""
    for folder in _DESCRIPTOR_FOLDERS:
        try:
            return len(os.listdir(folder)) - 1  # noqa: PTH208 - only how many; without the one that the listing has opened
        except OSError:
            continue
    return 0


def most_open_files() -> int:
    """How many descriptors this process may have open: the soft limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def python_labels() -> dict[str, str]:
    """The labels of `python_info`, as prometheus_client's own collector has them."""
    major, minor, patchlevel = map(str, sys.version_info[:3])
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "major": major,
        "minor": minor,
        "patchlevel": patchlevel,
    }


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Memory of this process in bytes; 0 where the platform does not report it.

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
    """Return memory that malloc keeps for later to the system, where the C library can (glibc).

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


def read_memory_limit(
    *,
    control_groups: Path = _CONTROL_GROUPS,
    membership: Path = _MEMBERSHIP,
    machine_bytes: int | None = None,
) -> int:
    """The lowest limit in bytes that applies: of this process's control groups, or the machine's memory.

    A container platform sets the limit on a group of ours or on one above it; both versions of control groups
    are read (Linux, cgroup-v2.rst and cgroup-v1/memory.rst).

    Args:
        control_groups: where they are mounted.
        membership: the file that names ours.
        machine_bytes: the machine's memory; asked of the system by default.

    Returns:
        The limit; 0 where the system reports neither.
    """
    limits = [_machine_bytes() if machine_bytes is None else machine_bytes]
    limits += [
        limit for path in _limit_files(control_groups, membership) if (limit := _read(path)) is not None
    ]
    return min((limit for limit in limits if limit > 0), default=0)


def _limit_files(control_groups: Path, membership: Path) -> Iterator[Path]:
    """Where a limit may stand. Inside a container a path may be the host's, of which only the root exists here."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = control_groups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = control_groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        yield group / name
        while group not in {root, group.parent}:
            group = group.parent
            yield group / name


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group here, or "max": no limit
        return None


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0

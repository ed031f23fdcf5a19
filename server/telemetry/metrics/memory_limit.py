"""How much memory the processes here may use together before the system ends one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


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
        membership: the file that says which are ours.
        machine_bytes: the machine's memory; asked of the system by default.

    Returns:
        The limit; 0 where the system tells neither.
    """
    limits = [_machine_bytes() if machine_bytes is None else machine_bytes]
    limits += [
        limit for path in _limit_files(control_groups, membership) if (limit := _read(path)) is not None
    ]
    return min((limit for limit in limits if limit > 0), default=0)


def _limit_files(control_groups: Path, membership: Path) -> Iterator[Path]:
    """Where a limit may stand. Inside a container a path may be the host's: then only its root exists here."""
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

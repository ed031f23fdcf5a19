"""The machine: which cores do what, what a process costs, and how the machine is described beside a figure."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: the subject that is measured, and everything beside it (load, Redis, PostgreSQL).

    An empty set means: wherever the system likes.
    """

    subject: frozenset[int]
    beside: frozenset[int]

    @classmethod
    def of_this_machine(cls, *, workers: int = 1) -> Cores:
        """So many cores for the subject and the others for the rest; no division where that leaves none."""
        usable = usable_cores()
        if len(usable) <= workers:
            return cls(frozenset(), frozenset())
        return cls(frozenset(usable[:workers]), frozenset(usable[workers:]))

    @property
    def divided(self) -> bool:
        """Whether the subject has its cores for itself."""
        return bool(self.subject)


def usable_cores() -> list[int]:
    """The cores on which this process may run and children can be placed; none where the system has no such notion."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """What is started inside the block runs on these cores, for all of its life."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """The processor time of a process and its living descendants so far, user and system, in seconds."""
    total = 0.0
    for process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def worker_memory_mb(pid: int) -> float:
    """The resident memory of the largest process of a family in MB: of one worker, not of its master."""
    sizes = [0]
    for process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes.append(process.memory_info().rss)
    return max(sizes) / 1e6


def is_optimised() -> bool:
    """Whether this interpreter was built with profile-guided optimisation.

    An interpreter without it executes a tenth more instructions for the same request. Debian's and Ubuntu's packages
    are built with it, but their record of the build does not say so.
    """
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "--enable-optimizations" in options or "deb_system" in sysconfig.get_scheme_names()


def python_build() -> str:
    """The version of this interpreter, and how it was built."""
    build = "optimised" if is_optimised() else "not optimised"
    return f"{platform.python_version()} ({build}, {platform.python_compiler()})"


def node_build() -> str | None:
    """The version of the Node on the PATH, and how it was built; None without one."""
    node = shutil.which("node")
    if node is None:
        return None
    script = (
        "`${process.versions.node} (${process.config.target_defaults.default_configuration.toLowerCase()}, "
        "V8 ${process.versions.v8})`"
    )
    done = subprocess.run([node, "--print", script], capture_output=True, check=False, text=True)
    return done.stdout.strip() or None


def describe_machine() -> dict[str, str | int | None]:
    """What a reader must know to compare: processor, cores, memory, system, builds of Python and Node."""
    return {
        "processor": _processor_name(),
        "cores": len(usable_cores()) or os.cpu_count() or 1,
        "memoryGb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": python_build(),
        "node": node_build(),
    }


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _processor_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""What this process uses beside memory, and which Python it runs on."""

from __future__ import annotations

import os
import platform
import resource
import sys

_DESCRIPTOR_FOLDERS = ("/proc/self/fd", "/dev/fd")  # Linux, macOS


def count_open_files() -> int:
    """How many descriptors are open: connections, files, pipes; 0 where the system does not tell."""
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

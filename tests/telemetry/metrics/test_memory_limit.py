"""How much memory there is to use, from the files of both versions of Linux' control groups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from server.telemetry.metrics.process import read_memory_limit

GIB = 1 << 30
UNLIMITED_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"memory.max": f"{GIB}\n"}, GIB),
        ("0::/\n", {"memory.max": "max\n"}, 8 * GIB),
        ("0::/\n", {}, 8 * GIB),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{GIB}\n", "memory.max": "max\n"}, GIB),
        ("0::/a/b\n", {"a/b/memory.max": f"{GIB}\n", "a/memory.max": f"{2 * GIB}\n"}, GIB),
        ("0::/../..\n", {"memory.max": f"{GIB}\n"}, GIB),
        (
            "5:devices:/x\n4:memory:/docker/1\n0::/\n",
            {"memory/docker/1/memory.limit_in_bytes": f"{GIB}\n"},
            GIB,
        ),
        ("4:cpu,memory:/the/host's\n", {"memory/memory.limit_in_bytes": f"{GIB}\n"}, GIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": UNLIMITED_V1}, 8 * GIB),
        ("", {"memory.max": f"{GIB}\n"}, 8 * GIB),
    ],
)
def test_the_lowest_limit_applies(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    """Of our group, those above it and the machine's memory; a group that is not here counts for nothing."""
    for name, content in {**files, "../membership": membership}.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert expected == read_memory_limit(
        control_groups=tmp_path / "groups", membership=tmp_path / "membership", machine_bytes=8 * GIB
    )


def test_nobody_knows(tmp_path: Path) -> None:
    """Zero where neither control groups nor the system tell."""
    assert 0 == read_memory_limit(membership=tmp_path / "none", machine_bytes=0)


def test_a_group_is_enough(tmp_path: Path) -> None:
    """Where the system does not tell how much memory the machine has, the limit of the group holds."""
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    (tmp_path / "membership").write_text("0::/\n")
    limit = read_memory_limit(control_groups=tmp_path, membership=tmp_path / "membership", machine_bytes=0)
    assert GIB == limit


def test_here() -> None:
    """On this machine it is at most what the machine has, and more than this process uses."""
    limit = read_memory_limit()
    assert psutil.Process().memory_info().rss < limit <= psutil.virtual_memory().total

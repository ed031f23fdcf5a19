"""The sums over all workers' files are those of prometheus_client's own, much slower, collector."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics

from server.telemetry.metrics.exposition import render_families
from server.telemetry.metrics.series import Family
from server.telemetry.metrics.workers import WorkerFiles

BOUNDS = ("0.1", "2.5", "10.0", "+Inf")
HELP = 'What "it" is: \\ and\nmore.'
KINDS = {
    "requests": "counter",
    "seconds": "histogram",
    "up": "gauge_livemin",
    "limit": "gauge_livemax",
    "in_flight": "gauge_livesum",
    "memory": "gauge_liveall",
}

Write = tuple[int, str, str, float]  # process id, metric, the value of its label, what is added
writes = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from(sorted(KINDS)),
        st.text(st.sampled_from('a"\\\n,{}ü '), max_size=3),
        st.integers(1, 10**9).map(float),
    ),
    max_size=30,
)


def write(folder: Path, pid: int, metric: str, label: str, value: float) -> None:
    """Add to a value in a worker's file, as the library does."""
    kind = KINDS[metric]
    labels, texts = ["route"], [label]
    if kind == "counter":
        added = {mmap_key(metric, f"{metric}_total", labels, texts, HELP): value}
    elif kind == "histogram":
        bound = BOUNDS[int(value) % len(BOUNDS)]
        added = {mmap_key(metric, f"{metric}_sum", labels, texts, HELP): value} | {
            mmap_key(metric, f"{metric}_bucket", [*labels, "le"], [*texts, le], HELP): float(le == bound)
            for le in BOUNDS
        }
    else:
        added = {mmap_key(metric, metric, labels, texts, HELP): value}
    file = MmapedDict(str(folder / f"{kind}_{pid}.db"))  # type: ignore[no-untyped-call]
    for key, amount in added.items():
        former, _ = file.read_value(key)  # type: ignore[no-untyped-call]
        file.write_value(key, former + amount, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


def lines_of_ours(files: WorkerFiles, accept: str) -> list[str]:
    """What we expose, sorted."""
    values = files.values()
    families = [
        Family(metric, kind.partition("_")[0], HELP, values[metric])
        for metric, kind in KINDS.items()
        if metric in values
    ]
    return sorted(render_families(families, accept)[0].decode().splitlines())


def lines_of_the_library(folder: Path, accept: str) -> list[str]:
    """What prometheus_client exposes, sorted."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    text: bytes = (openmetrics.generate_latest if accept else generate_latest)(registry)
    return sorted(text.decode().splitlines())


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
@given(first=writes, then=writes)
def test_the_library_says_the_same(accept: str, first: list[Write], then: list[Write]) -> None:
    """Line by line, for any labels, also when files have grown between two scrapes."""
    with TemporaryDirectory() as name:
        folder, files = Path(name), WorkerFiles(Path(name))
        for batch in (first, then):
            for pid, metric, label, value in batch:
                write(folder, pid, metric, label, value)
            assert lines_of_the_library(folder, accept) == lines_of_ours(files, accept)


@pytest.fixture
def files(tmp_path: Path) -> WorkerFiles:
    """A reader that has seen two workers."""
    for pid in (1, 2):
        write(tmp_path, pid, "in_flight", "a", 5.0)
    files = WorkerFiles(tmp_path)
    assert 'in_flight{route="a"} 10.0' in lines_of_ours(files, "")
    return files


def test_a_worker_that_is_gone_is_gone(files: WorkerFiles, tmp_path: Path) -> None:
    """What was remembered of a file counts for nothing once the file is removed."""
    (tmp_path / "gauge_livesum_1.db").unlink()
    assert 'in_flight{route="a"} 5.0' in lines_of_ours(files, "")


def test_another_worker_with_its_process_id(files: WorkerFiles, tmp_path: Path) -> None:
    """A new file under a known name is another file, even where it is as long and ordered differently."""
    write(tmp_path, 2, "in_flight", "b", 1.0)
    assert 'in_flight{route="b"} 1.0' in lines_of_ours(files, "")
    (tmp_path / "gauge_livesum_2.db").rename(tmp_path / "kept")
    for label, value in (("b", 70.0), ("a", 30.0)):
        write(tmp_path, 2, "in_flight", label, value)
    lines = lines_of_ours(files, "")
    assert {'in_flight{route="a"} 35.0', 'in_flight{route="b"} 70.0'} <= set(lines)


def test_nothing_is_remembered_of_workers_that_are_gone(tmp_path: Path) -> None:
    """A thousand restarts later a reader knows the files that there are, and no others."""
    files = WorkerFiles(tmp_path)
    for pid in range(1, 30):
        write(tmp_path, pid, "memory", "a", 1.0)
        write(tmp_path, pid, "in_flight", "a", 1.0)
        assert {"memory", "in_flight"} == files.values().keys()
        for kind in ("liveall", "livesum"):
            (tmp_path / f"gauge_{kind}_{pid}.db").unlink()
    assert {} == files.values()
    assert {} == files._layouts
    assert {None} == {pid for _, pid in files._series}


def test_one_kind_is_read_alone(tmp_path: Path) -> None:
    """A look at the counters opens no other files, of which there are more."""
    for metric in KINDS:
        write(tmp_path, 1, metric, "a", 1.0)
    files = WorkerFiles(tmp_path)
    assert {"requests"} == files.values("counter").keys()
    assert {"seconds"} == files.values("histogram").keys()
    assert {"up", "limit", "in_flight", "memory"} == files.values("gauge").keys()
    assert KINDS.keys() == files.values().keys()

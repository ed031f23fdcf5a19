"""Adds what dead workers have counted together, so that no number of restarts makes a scrape slower.

A worker leaves a file of its counters and one of its histograms. When it has ended, the master adds them to those of
all workers that have ended before. Readers see either, never both, which would count twice, and never neither.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

from server.telemetry.metrics.file_lock import exclusive_lock
from server.telemetry.metrics.multiprocess import LOCK
from server.telemetry.metrics.value_files import ValueFile

_KEPT: Final = ("counter", "histogram")
_RETIRED: Final = "retired"
_LOCK_SECONDS: Final = 1.0


def retire(directory: Path, pid: int) -> None:
    """Add the files of a worker that has ended to those of the others. A file that can't be read stays as it is.

    Called by one master at a time.

    Raises:
        OSError: there is no room to put them together; the worker's files stay, and count, as they are.
    """
    for kind in _KEPT:
        worker, retired = directory / f"{kind}_{pid}.db", directory / f"{kind}_{_RETIRED}.db"
        try:
            values = list(_read(worker))
        except (FileNotFoundError, RuntimeError, struct.error, UnicodeDecodeError):
            continue
        merged = retired.with_suffix(".tmp")
        try:
            merged.unlink(missing_ok=True)
            if retired.exists():
                shutil.copyfile(retired, merged)
            _add(merged, values)
            with exclusive_lock(directory / LOCK, seconds=_LOCK_SECONDS):
                merged.replace(retired)
                worker.unlink()
        except (
            TimeoutError
        ):  # a reader was stopped while it read; the master has more to do than to wait for it
            merged.unlink()
        except OSError:
            with contextlib.suppress(OSError):
                merged.unlink(missing_ok=True)
            raise


def _read(file: Path) -> Iterator[tuple[str, float]]:
    """The keys and values of a file; none of one whose worker was killed while it made it."""
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            yield key, value
    except struct.error:
        if file.stat().st_size >= struct.calcsize("i"):
            raise


def _add(file: Path, values: Iterable[tuple[str, float]]) -> None:
    sums = ValueFile(str(file), must_share=True)
    try:
        for key, value in values:
            former, _ = sums.read_value(key)  # type: ignore[no-untyped-call]
            sums.write_value(key, former + value, 0.0)  # type: ignore[no-untyped-call]
    finally:
        sums.close()

"""Adds up what the worker processes have written to their files of metrics, the living and the dead.

prometheus_client's own collector parses every key of every file at every scrape, and makes objects of each value.
Keys are only ever added to a file, so here they are parsed once, and a scrape reads the numbers.

A worker leaves a file of its counters and one of its histograms. When it has ended, the master adds them to those of
all workers that have ended before, so that no number of restarts makes a scrape slower. Readers see either the
worker's file or its numbers in the sum: both would count twice, neither would lose them.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import Final

import orjson
import structlog
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

from server.telemetry.metrics.directory import LOCK, exclusive_lock, multiprocess_directory, shared_lock
from server.telemetry.metrics.series import Series, cumulative
from server.telemetry.metrics.value_files import ValueFile, unshared_files

log = structlog.get_logger(__name__)

_HEADER_BYTES = 8  # A worker that was killed while it made its file has written less.
_WORD_BYTES = 8
_READING_LOCK_SECONDS: Final = 0.1  # a master that was stopped in the wrong moment must not stop the workers
_used_bytes = struct.Struct("i").unpack_from  # the header's first number, as in prometheus_client.mmap_dict
_logged: set[tuple[str, str]] = set()
_MERGES: dict[str, Callable[[float, float], float]] = {"livemin": min, "livemax": max, "livesum": add}
_KEPT: Final = ("counter", "histogram")
_RETIRED: Final = "retired"
_RETIRING_LOCK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a file holds, by key: the place of its value, in words of eight bytes.

    Attributes:
        version: the file and how many of its bytes were used; what follows is true for no other.
    """

    version: tuple[int, int]
    places: dict[str, int]


class WorkerFiles:
    """The files of metrics in a directory.

    Args:
        directory: where the workers write theirs; see `multiprocess`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._layouts: dict[str, _Layout] = {}
        self._series: dict[tuple[str, str | None], tuple[str, Series]] = {}
        self._counts: dict[tuple[str, ...], Series] = {}

    def values(self, kind: str = "*") -> dict[str, list[tuple[Series, float]]]:
        """The series of all workers by the name of their metric: sums, and for gauges what their mode asks for.

        What this process can't write to its files is read from its memory.

        Args:
            kind: `counter`, `gauge` or `histogram` to read only those.

        Raises:
            KeyError: a gauge has a mode that `_MERGES` lacks.
        """
        merged: dict[Series, float] = {}
        families: dict[str, list[Series]] = {}
        histograms = set()
        with shared_lock(self._directory / LOCK, seconds=_READING_LOCK_SECONDS):
            paths = set(self._directory.glob(f"{kind}_*.db"))
            own = {file.path: file for file in unshared_files() if file.path.match(f"{kind}_*.db")}
            read = [
                (path, own[path].items() if path in own else self._read(path))
                for path in sorted(paths | own.keys())
            ]
        for path, written in read:
            kind_of_file, *mode, pid = path.stem.split("_")
            own_pid = pid if mode == ["liveall"] else None
            merge = _MERGES[mode[0]] if mode and own_pid is None else add
            for key, value in written:
                name, series = self._series.get((key, own_pid)) or self._parse(key, own_pid, kind_of_file)
                former = merged.get(series)
                if former is None:
                    families.setdefault(name, []).append(series)
                    if series.count is not None:
                        histograms.add(name)
                merged[series] = value if former is None else merge(former, value)
        if kind == "*" and len(self._layouts) > len(read):
            self._forget({path.name for path, _ in read})
        values = {name: [(series, merged[series]) for series in family] for name, family in families.items()}
        return values | {name: cumulative(values[name]) for name in histograms}

    def _forget(self, names: set[str]) -> None:
        """Forget all files but those with these names, and the workers that have none of them."""
        pids = {name.removesuffix(".db").rpartition("_")[2] for name in names}
        self._layouts = {name: layout for name, layout in self._layouts.items() if name in names}
        self._series = {key: found for key, found in self._series.items() if key[1] is None or key[1] in pids}

    def _read(self, path: Path) -> Iterable[tuple[str, float]]:
        """The keys and values of a file."""
        try:
            data = path.read_bytes()
            if len(data) < _HEADER_BYTES:
                return ()
            version = path.stat().st_ino, _used_bytes(data)[0]
            layout = self._layouts.get(path.name)
            if layout is None or layout.version != version:
                layout = self._layouts[path.name] = _layout(path)
                data = path.read_bytes()
        except FileNotFoundError:  # its worker has just ended
            return ()
        words = memoryview(data)[: len(data) // _WORD_BYTES * _WORD_BYTES].cast("d")
        return [(key, words[place]) for key, place in layout.places.items()]

    def _parse(self, key: str, pid: str | None, kind: str) -> tuple[str, Series]:
        name, sample, labels, _ = orjson.loads(key)
        if pid is not None:
            labels["pid"] = pid
        count = None
        if kind == "histogram":
            others = {label: labels[label] for label in labels if label != "le"}
            of_one = name, *others.values()
            count = self._counts.get(of_one)
            if count is None:
                count = self._counts[of_one] = Series.of(f"{name}_count", others)
        found = self._series[key, pid] = name, Series.of(sample, labels, count=count)
        return found


def _layout(path: Path) -> _Layout:
    """Parse a file's keys with the library that wrote them."""
    places, end = {}, _HEADER_BYTES
    for key, _, _, place in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
        places[key] = place // _WORD_BYTES
        end = place + 2 * _WORD_BYTES  # a value and its time
    return _Layout((path.stat().st_ino, end), places)


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
            with exclusive_lock(directory / LOCK, seconds=_RETIRING_LOCK_SECONDS):
                merged.replace(retired)
                worker.unlink()
        except TimeoutError:  # a reader was stopped while it read; the master must not wait for it
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


def forget_worker(pid: int, *, retire_files: bool = True) -> None:
    """Drop what only a living process has, such as its requests in flight; what it counted stays, with the others'.

    Never raises: it runs in the master, whose end would be the service's.

    Args:
        pid: of a worker that has ended.
        retire_files: put its counters together with those of others that have ended; for one master at a time.
    """
    directory = multiprocess_directory()
    if directory is None:
        return
    try:
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        if retire_files:
            retire(directory, pid)
    except Exception as error:  # noqa: BLE001 - see above
        _log_once("metrics.worker_not_retired", error)


def _log_once(event: str, error: Exception) -> None:
    """Log a fault, but not again with each worker that ends while it lasts."""
    reason = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else repr(error)
    if (event, reason) not in _logged:
        _logged.add((event, reason))
        log.error(
            event, reason=reason, detail="what it counted stays in files of its own, or is lost with them"
        )

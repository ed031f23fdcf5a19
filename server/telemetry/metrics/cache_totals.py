"""The cache's numbers for administrators: over all workers, since they were last reset to zero."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

_BASELINE = "cache_reset.json"
_LAST_ERROR = "cache_last_error.json"
_ERROR_WRITE_SECONDS = 0.1  # While the cache is down each request fails: its last error is shared this often.


@dataclass(frozen=True, slots=True)
class CacheTotals:
    """The cache's numbers since the last reset, and its last error since then."""

    hits: int
    misses: int
    sets: int
    deletes: int
    errors: int
    last_error: str | None
    last_error_time: datetime | None

    @property
    def operations(self) -> int:
        """All operations, the failed ones too."""
        return self.hits + self.misses + self.sets + self.deletes + self.errors

    @property
    def hit_rate(self) -> float:
        """Hits in percent of all reads, 0..100; 0 without reads."""
        reads = self.hits + self.misses
        return 100.0 * self.hits / reads if reads else 0.0


class ResetPoint:
    """The counters' values at the last reset, and the cache's last error.

    Args:
        directory: where the worker processes share both; None keeps them in this process.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._memory: dict[str, dict[str, Any]] = {}
        self._error_written = 0.0

    def since(self, counts: Mapping[str, int]) -> CacheTotals:
        """The difference between the counters' values now and at the last reset."""
        baseline = self._read(_BASELINE)
        error = self._read(_LAST_ERROR)
        own = self._memory.get(_LAST_ERROR, {})
        if own.get("time", 0.0) > error.get("time", 0.0):
            error = own
        seen = error.get("time", 0.0) > baseline.get("time", 0.0)
        return CacheTotals(
            **{name: max(0, count - baseline.get(name, 0)) for name, count in counts.items()},
            last_error=error["reason"] if seen else None,
            last_error_time=datetime.fromtimestamp(error["time"], UTC) if seen else None,
        )

    def reset(self, counts: Mapping[str, int]) -> None:
        """Count from the present values of the counters on.

        Raises:
            OSError: the directory can't be written to.
        """
        self._write(_BASELINE, {**counts, "time": time.time()})

    def record_error(self, reason: str) -> None:
        """Remember the cache's last error and when it was. Never raises."""
        now = time.time()
        former = self._memory.get(_LAST_ERROR, {})
        error = {"reason": reason, "time": now}
        self._memory[_LAST_ERROR] = error
        if now - self._error_written >= _ERROR_WRITE_SECONDS or former.get("reason") != reason:
            self._error_written = now
            with contextlib.suppress(OSError):
                self._write(_LAST_ERROR, error)

    def _read(self, name: str) -> dict[str, Any]:
        if self._directory is None:
            return self._memory.get(name, {})
        try:
            content: dict[str, Any] = orjson.loads((self._directory / name).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return {}
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        if self._directory is None:
            self._memory[name] = content
            return
        # Readers see the old file or the new one, never a half.
        draft = self._directory / f"{name}.{os.getpid()}"
        draft.write_bytes(orjson.dumps(content))
        draft.replace(self._directory / name)

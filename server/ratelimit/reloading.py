"""The rate limits file while the service runs: read at the start, and again whenever it changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ..stores.redis.events import get_logger
from .limits import RateLimits
from .limits_file import RateLimitsError, load_rate_limits, parse_rate_limits

log = get_logger(__name__)

# Its name in the directory that the workers of one run share, which is emptied before the first of them starts.
LAST_GOOD: Final = "last-good-ratelimits.toml"


class RateLimitsFile:
    """The rate limits in force, which follow their file.

    A change applies as soon as the file has been left alone for one poll, so that a file half written is not read. A
    file that is not valid changes nothing and is logged, once for each of its states. The contents are compared, not
    the time of modification: two changes within one tick of the file system's clock have the same time, and a mounted
    configuration map may not show it at all.

    A worker process that replaces another one (after a crash, or a SIGHUP to the master) may find a file that is not
    valid. It then serves with the contents that were valid last in this run of the service. Every worker leaves them
    in `last_good`.

    Args:
        path: the file; it must be valid now, unless there is a last good one.
        required_groups: the groups that the routes name.
        routes: the group of each route (`load_rate_limits`).
        parse_subject: reads a subject as people write it (`load_rate_limits`).
        poll_interval_seconds: how often the file is looked at.
        last_good: where the workers of one run keep the last valid contents; None: nowhere.
        on_change: called with the new limits once a reload has changed them, so that memories of verdicts
            made under the old ones can be dropped.

    Raises:
        RateLimitsError: the file is not valid at the start, and no last good one is left.
    """

    def __init__(
        self,
        path: Path,
        *,
        required_groups: Iterable[str] = (),
        routes: Mapping[str, str] | None = None,
        parse_subject: Callable[[str], str] = str,
        poll_interval_seconds: float = 1.0,
        last_good: Path | None = None,
        on_change: Callable[[RateLimits], None] | None = None,
    ) -> None:
        self._path: Final = path
        groups = required_groups if isinstance(required_groups, Mapping) else tuple(required_groups)
        self._read_as: Final[dict[str, Any]] = {
            "required_groups": groups,
            "routes": routes,
            "parse_subject": parse_subject,
        }
        self._poll_interval_seconds: Final = poll_interval_seconds
        self._on_change: Final = on_change
        self._last_good: Final = last_good
        self._applied = self._seen = self._contents()
        try:
            self._current = self._load()
        except RateLimitsError as error:
            self._current = self._load_last_good(error)
        self._watcher: asyncio.Task[None] | None = None

    @property
    def current(self) -> RateLimits:
        """The limits in force: the last valid state of the file."""
        return self._current

    def reload(self) -> bool:
        """Read the file now. Returns whether it was valid."""
        self._applied = self._contents()
        try:
            limits = self._load()
        except RateLimitsError as error:
            log.warning("rate_limits.reload_failed", file=str(self._path), problems=list(error.problems))
            return False
        changed = not limits.same_as(self._current)
        self._current = limits
        log.info("rate_limits.reloaded", file=str(self._path), changed=changed)
        if changed and self._on_change is not None:
            self._on_change(limits)
        return True

    async def start(self) -> None:
        """Begin to watch the file."""
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="rate-limits-watcher")

    async def close(self) -> None:
        """Stop watching; the limits stay as they are."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_interval_seconds)
            try:
                self._look()
            except Exception:
                # A callback failed. The watch must outlive it, or the next change would go unseen.
                log.exception("rate_limits.reload_crashed", file=str(self._path))

    def _look(self) -> None:
        contents, before = self._contents(), self._seen
        self._seen = contents
        if contents == before and contents != self._applied:
            self.reload()

    def _load(self) -> RateLimits:
        """Return the limits in the contents that were read last, and keep these in `last_good` if they are valid."""
        contents = self._applied
        if contents is None:
            return load_rate_limits(self._path, **self._read_as)
        limits = parse_rate_limits(contents, file=str(self._path), **self._read_as)
        if self._last_good is not None:
            # Workers write the same thing at the same time; a reader must never see half of it.
            unfinished = self._last_good.with_suffix(f".{os.getpid()}.toml")
            try:
                unfinished.write_bytes(contents)
                unfinished.replace(self._last_good)
            except OSError as error:
                log.warning("rate_limits.not_kept", file=str(self._last_good), error=error.strerror)
        return limits

    def _load_last_good(self, error: RateLimitsError) -> RateLimits:
        """Return the limits that were valid last; raise the error if there are none."""
        if self._last_good is None or not self._last_good.exists():
            raise error
        limits = load_rate_limits(self._last_good, **self._read_as)
        log.warning("rate_limits.kept_last_good", file=str(self._path), problems=list(error.problems))
        return limits

    def _contents(self) -> bytes | None:
        """The bytes of the file; None while it can't be read."""
        try:
            return self._path.read_bytes()
        except OSError:
            return None

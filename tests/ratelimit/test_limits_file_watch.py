"""The rate limits file, followed while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from server.ratelimit.limits import RateLimits
from server.ratelimit.limits_file import RateLimitsError
from server.ratelimit.reloading import RateLimitsFile
from tests.support.waiting import wait_until


def text_of(limit: int) -> str:
    return f'[policies.standard]\nlimit = {limit}\nwindow = "1m"\n[groups.writes]\npolicies = ["standard"]\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ratelimits.toml"
    write(path, 60)
    return path


def write(path: Path, limit: int) -> None:
    path.write_text(text_of(limit))


def replace(path: Path, limit: int) -> None:
    replacement = path.with_suffix(".new")
    write(replacement, limit)
    replacement.replace(path)


def remove(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_text(path.read_text().partition("[groups")[0])


class Watched:
    """A file that is followed, its changes and what is logged of it."""

    def __init__(self, path: Path, logs: list[EventDict]) -> None:
        self.changes: asyncio.Queue[int] = asyncio.Queue()
        self.logs = logs
        self.file = RateLimitsFile(
            path,
            required_groups=("writes",),
            poll_interval_seconds=0.01,
            on_change=self._changed,
        )

    def limit(self) -> int:
        """The limit in force."""
        return self.file.current.presets["standard"].policy.limit

    def _changed(self, limits: RateLimits) -> None:
        self.changes.put_nowait(limits.presets["standard"].policy.limit)

    def failures(self) -> list[str]:
        """The problems of each reload that failed, as logged."""
        return [
            "\n".join(entry["problems"])
            for entry in self.logs
            if entry["event"] == "rate_limits.reload_failed"
        ]

    async def failure(self) -> str:
        """The problems of the first reload that fails."""
        await wait_until(lambda: bool(self.failures()), "a reload fails")
        return self.failures()[0]


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[Watched]:
    with capture_logs() as logs:
        watched = Watched(path, logs)
        await watched.file.start()
        try:
            async with asyncio.timeout(30):
                yield watched
        finally:
            await watched.file.close()


async def test_point_15_a_changed_file_applies_without_a_restart(path: Path) -> None:
    """The new limit is in force, and who asked to be told is told once."""
    async with watching(path) as watched:
        assert watched.limit() == 60
        write(path, 61)
        assert await watched.changes.get() == 61
        assert watched.limit() == 61
        write(path, 600)
        assert await watched.changes.get() == 600
        assert watched.changes.empty()


async def test_a_file_that_is_replaced_is_followed(path: Path) -> None:
    """Deployments and editors put a new file in the place of the old one."""
    async with watching(path) as watched:
        replace(path, 70)
        assert await watched.changes.get() == 70


async def test_point_15_the_last_good_file_is_kept_on_error(path: Path) -> None:
    """A mistake changes nothing, is logged with its line, and its correction applies."""
    async with watching(path) as watched:
        write(path, 0)
        assert "policies.standard.limit: 0 is not valid" in await watched.failure()
        assert watched.limit() == 60
        write(path, 80)
        assert await watched.changes.get() == 80
    failed, reloaded = watched.logs
    assert (failed["event"], failed["log_level"]) == ("rate_limits.reload_failed", "warning")
    assert failed["problems"][0].startswith(f"{path}:2: policies.standard.limit")
    assert (reloaded["event"], reloaded["changed"]) == ("rate_limits.reloaded", True)


async def test_a_deleted_file_is_told_once_and_followed_when_it_is_back(path: Path) -> None:
    """No line a poll while it is away."""
    async with watching(path) as watched:
        remove(path)
        assert "can't be read" in await watched.failure()
        write(path, 90)
        assert await watched.changes.get() == 90
        assert 1 == len(watched.failures())
        assert watched.limit() == 90


def test_a_file_that_still_changes_is_left_alone_until_it_rests(path: Path) -> None:
    """What differs from one look to the next may be half written."""
    file = RateLimitsFile(path)
    in_force = []
    for limit in (61, 62, 63, 63, 63):
        write(path, limit)
        file._look()
        in_force.append(file.current.presets["standard"].policy.limit)
    assert in_force == [60, 60, 60, 63, 63]


async def test_a_group_the_routes_need_cannot_be_taken_away(path: Path) -> None:
    """A file cut short in the middle of being written never leaves a route without its limits."""
    async with watching(path) as watched:
        cut_short(path)
        assert "groups.writes: the routes need this group" in await watched.failure()
        assert "writes" in watched.file.current.groups


async def test_the_watch_outlives_a_listener_that_fails(path: Path) -> None:
    """One bad callback must not be the end of all reloading."""
    called: asyncio.Queue[int] = asyncio.Queue()

    def listen(limits: RateLimits) -> None:
        called.put_nowait(limits.presets["standard"].policy.limit)
        raise RuntimeError("listener")

    with capture_logs() as logs:
        file = RateLimitsFile(path, poll_interval_seconds=0.01, on_change=listen)
        await file.start()
        async with asyncio.timeout(30):
            write(path, 61)
            assert await called.get() == 61
            write(path, 620)
            assert await called.get() == 620
        await file.close()
    assert "rate_limits.reload_crashed" in {entry["event"] for entry in logs}


def test_point_15_reload_reads_the_file_at_once(path: Path) -> None:
    """As on SIGHUP: no waiting for the next poll, and no watch needed."""
    file = RateLimitsFile(path)
    write(path, 61)
    assert file.reload() is True
    assert file.current.presets["standard"].policy.limit == 61
    path.write_text("nonsense")
    assert file.reload() is False
    assert file.current.presets["standard"].policy.limit == 61


def test_a_reload_of_the_same_limits_is_no_change(path: Path) -> None:
    """Caches that live by the limits need not be emptied for a file that was only touched."""
    changes: list[RateLimits] = []
    file = RateLimitsFile(path, on_change=changes.append)
    path.write_text("# A comment more.\n" + text_of(60))
    assert file.reload() is True
    assert changes == []


def test_a_file_that_is_wrong_at_the_start_stops_the_start(path: Path) -> None:
    """There is no last good state yet; every problem is in the error's text."""
    path.write_text(text_of(0).replace('"1m"', '"1x"'))
    with pytest.raises(RateLimitsError) as caught:
        RateLimitsFile(path, required_groups=("reads",))
    assert len(str(caught.value).splitlines()) == 3


def test_point_15_a_worker_that_starts_late_has_the_last_good_file(path: Path) -> None:
    """What one worker found valid is what the next begins with while the file is wrong; a change applies to it."""
    kept = path.with_name("last-good.toml")
    RateLimitsFile(path, last_good=kept)
    write(path, 61)
    assert RateLimitsFile(path, last_good=kept).current.presets["standard"].policy.limit == 61
    write(path, 0)
    with capture_logs() as logs:
        late = RateLimitsFile(path, required_groups=("writes",), last_good=kept)
    assert late.current.presets["standard"].policy.limit == 61
    assert [("rate_limits.kept_last_good", "warning")] == [(one["event"], one["log_level"]) for one in logs]
    assert logs[0]["problems"][0].startswith(f"{path}:2: policies.standard.limit")
    write(path, 62)
    assert late.reload()
    assert late.current.presets["standard"].policy.limit == 62
    assert kept.read_bytes() == path.read_bytes()
    assert {path, kept} == set(path.parent.iterdir())


def test_limits_apply_though_they_can_not_be_kept(path: Path) -> None:
    """A full or missing directory for the last good file is a line in the log, not the end of a worker."""
    with capture_logs() as logs:
        file = RateLimitsFile(path, last_good=path.parent / "missing" / "last-good.toml")
    assert file.current.presets["standard"].policy.limit == 60
    assert ["rate_limits.not_kept"] == [one["event"] for one in logs]


async def test_closing_twice_or_before_the_start_does_nothing(path: Path) -> None:
    """And leaves no task behind."""
    before = asyncio.all_tasks()
    file = RateLimitsFile(path)
    await file.close()
    await file.start()
    await file.start()
    assert len(asyncio.all_tasks() - before) == 1
    await file.close()
    await file.close()
    assert asyncio.all_tasks() == before

"""The cache's numbers since the last reset."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.telemetry.metrics.counting import CacheTotals, ResetPoint
from server.telemetry.metrics.index import Metrics

COUNTS = {"hits": 8, "misses": 2, "sets": 3, "deletes": 1, "errors": 1}


@pytest.fixture(params=["memory", "directory"])
def point(request: pytest.FixtureRequest, tmp_path: Path) -> ResetPoint:
    """Where the last reset is kept: in this process, or in a directory for several."""
    return ResetPoint(tmp_path if request.param == "directory" else None)


def test_totals_without_a_reset(point: ResetPoint) -> None:
    """The totals are the counters; the rate is in percent of reads, the operations are all of them."""
    totals = point.since(COUNTS)
    assert CacheTotals(8, 2, 3, 1, 1, last_error=None, last_error_time=None) == totals
    assert (80.0, 15) == (totals.hit_rate, totals.operations)


def test_no_reads_no_rate(point: ResetPoint) -> None:
    """Without a read the hit rate is 0, not a division by zero."""
    assert 0.0 == point.since(dict.fromkeys(COUNTS, 0)).hit_rate


def test_a_reset_starts_from_zero(point: ResetPoint) -> None:
    """After a reset only what came since counts, and the last error before it is forgotten."""
    point.record_error("refused")
    point.reset(COUNTS)
    assert CacheTotals(0, 0, 0, 0, 0, last_error=None, last_error_time=None) == point.since(COUNTS)
    assert 5 == point.since({**COUNTS, "hits": 13}).hits


def test_the_last_error_has_its_time(point: ResetPoint) -> None:
    """The last of several errors is shown, with when it was."""
    for reason in ("refused", "timeout", "lost"):
        point.record_error(reason)
    totals = point.since(COUNTS)
    assert "lost" == totals.last_error
    assert totals.last_error_time is not None
    assert abs(datetime.now(UTC) - totals.last_error_time) < timedelta(seconds=10)


def test_processes_share_the_reset_and_the_last_error(tmp_path: Path) -> None:
    """What one process resets or suffers, another sees."""
    one, other = ResetPoint(tmp_path), ResetPoint(tmp_path)
    one.reset(COUNTS)
    assert 0 == other.since(COUNTS).hits
    other.record_error("timeout")
    assert "timeout" == one.since(COUNTS).last_error


def test_a_storm_of_errors_is_told_exactly_to_its_own_process(tmp_path: Path) -> None:
    """Errors of one kind within a moment are shared once, yet this process knows the very last one's time."""
    point = ResetPoint(tmp_path)
    times = []
    for _ in range(100):
        point.record_error("refused")
        times.append(point.since(COUNTS).last_error_time)
    assert times == sorted(times, key=lambda moment: moment or datetime.min.replace(tzinfo=UTC))
    assert times[0] != times[-1]


def test_a_lost_directory_harms_nobody(tmp_path: Path) -> None:
    """Without the directory errors are still remembered here, and totals are the counters."""
    point = ResetPoint(tmp_path / "gone")
    point.record_error("refused")
    assert (8, "refused") == (point.since(COUNTS).hits, point.since(COUNTS).last_error)
    with pytest.raises(OSError, match="gone"):
        point.reset(COUNTS)


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    """While one process resets over and over, another reads a whole baseline each time."""
    writer, reader = ResetPoint(tmp_path), ResetPoint(tmp_path)
    writer.reset(COUNTS)
    done = threading.Event()

    def reset_often() -> None:
        for _ in range(300):
            writer.reset(COUNTS)
        done.set()

    thread = threading.Thread(target=reset_often)
    thread.start()
    seen = set()
    while not done.is_set():
        seen.add(reader.since(COUNTS).hits)
    thread.join()
    assert {0} == seen


def test_the_counters_stay_monotonic() -> None:
    """A reset changes the totals and the hit rate, and no counter."""
    metrics = Metrics()
    metrics.cache_hits.inc(3)
    metrics.cache_errors.inc()
    metrics.record_cache_error("refused")
    assert (3, 1, "refused") == (
        metrics.cache_totals().hits,
        metrics.cache_totals().errors,
        metrics.cache_totals().last_error,
    )
    metrics.reset_cache_totals()
    metrics.cache_misses.inc()
    totals = metrics.cache_totals()
    assert (0, 1, 0, None) == (totals.hits, totals.misses, totals.errors, totals.last_error)
    text = metrics.render_text("")[0].decode()
    assert "\ncache_hits_total 3.0\n" in text
    assert "\ncache_hit_rate 0.0\n" in text


def test_counters_that_were_lost_are_no_debt(point: ResetPoint) -> None:
    """Where files of counters are gone, less was counted than at the reset: that is none, not less than none."""
    point.reset(COUNTS)
    totals = point.since({**COUNTS, "hits": COUNTS["hits"] - 5})
    assert (0, 0, 0.0) == (totals.hits, totals.operations, totals.hit_rate)


def test_another_kind_of_error_is_told_to_the_others_at_once(tmp_path: Path) -> None:
    """Of one kind, a process shares ten a second; a new kind is news."""
    one, other = ResetPoint(tmp_path), ResetPoint(tmp_path)
    for reason in ("refused", "refused", "timeout", "timeout", "lost"):
        one.record_error(reason)
        assert reason == other.since(COUNTS).last_error

"""The stopwatch of a request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.telemetry import timings
from server.telemetry.timings import Operation, Timings, current_timings, measure, operation

Interval = tuple[int, int]


@pytest.fixture
def current() -> Iterator[Timings]:
    """The stopwatch of a request that is under way."""
    timings = Timings()
    token = current_timings.set(timings)
    yield timings
    current_timings.reset(token)


def length_of_union(intervals: list[Interval]) -> int:
    """The number of whole seconds that at least one interval covers."""
    return len({second for begin, end in intervals for second in range(begin, end)})


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair))), max_size=8
    )
)
def test_overlapping_operations_count_once(intervals: list[Interval]) -> None:
    """A part's time is the length of the union of its operations' intervals, its count their number."""
    now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timings, "perf_counter", lambda: now)
        stopwatch = Timings()
        events = [(begin, 0) for begin, _ in intervals] + [(end, 1) for _, end in intervals]
        for moment, is_end in sorted(events):
            now = float(moment)
            if is_end:
                stopwatch.end("db")
            else:
                stopwatch.begin("db")
    assert length_of_union(intervals) * 1000.0 == pytest.approx(stopwatch.seconds.get("db", 0.0) * 1000.0)
    assert (len(intervals) or None) == stopwatch.counts.get("db")


def test_parts_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in one part is not time in another, even where they overlap."""
    moments = iter([0.0, 1.0, 2.0, 4.0, 7.0, 8.0])
    monkeypatch.setattr(timings, "perf_counter", lambda: next(moments))
    stopwatch = Timings()  # 0
    stopwatch.begin("db")  # 1
    stopwatch.begin("cache")  # 2
    stopwatch.end("cache")  # 4
    stopwatch.end("db")  # 7
    assert (8000.0, "8000.00", {"db": "6000.00", "cache": "2000.00"}) == stopwatch.read()


def test_measure_charges_the_current_request() -> None:
    """A measured block is charged to the request at hand, also when it fails; elsewhere nothing happens."""
    with measure("db"):
        pass
    stopwatch = Timings()
    token = current_timings.set(stopwatch)
    try:
        with pytest.raises(LookupError), measure("limit"):
            raise LookupError
    finally:
        current_timings.reset(token)
    assert {"limit": 1} == stopwatch.counts
    assert stopwatch.seconds["limit"] > 0.0


def test_the_worst_cache_outcome_describes_the_request() -> None:
    """Of several outcomes the worst is kept, in whatever order they come."""
    stopwatch = Timings()
    assert stopwatch.cache_outcome is None
    seen: list[str | None] = []
    for outcome in ("HIT", "MISS", "STALE", "BYPASS", "HIT"):
        stopwatch.note_cache(outcome)
        seen.append(stopwatch.cache_outcome)
    assert ["HIT", "MISS", "MISS", "BYPASS", "BYPASS"] == seen


def test_operations_are_kept_where_somebody_asks(current: Timings) -> None:
    """Each with a name is one, well or failed, in the order of their ends; without a listener none is."""
    with operation("db", "unheard"), measure("cache", "unheard"):
        pass
    current.operations = []
    with measure("db"), operation("db", "find_user"):
        pass
    with pytest.raises(ValueError, match="x"), measure("cache", "cache.read"):
        raise ValueError("x")
    current.add("limit", "rate_limit.decide", current.started)
    assert [
        ("db", "find_user", None),
        ("cache", "cache.read", "ValueError"),
        ("limit", "rate_limit.decide", None),
    ] == [(each.part, each.name, each.error_type) for each in current.operations]
    assert all(current.started <= each.began <= each.ended for each in current.operations)
    assert {"db": 1, "cache": 2, "limit": 1} == current.counts


def test_a_request_does_not_collect_operations_for_ever(current: Timings) -> None:
    """The first thousand are enough to see what is wrong with it."""
    current.operations = []
    for _ in range(1100):
        with operation("db", "find_user"):
            pass
    assert 1000 == len(current.operations)


def test_what_ends_after_the_request_is_not_its_own(current: Timings) -> None:
    """Work that goes on in the background adds nothing once nobody listens any more."""
    kept: list[Operation] = []
    current.operations = kept
    with operation("db", "find_user"):
        current.operations = None
    assert [] == kept

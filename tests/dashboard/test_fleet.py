"""Several machines on the dashboard: their histories as one."""

from __future__ import annotations

import pytest

from server.dashboard.fleet import GAP_SECONDS, LIVE_SECONDS, Fleet
from server.dashboard.history import COARSE_STEP_SECONDS, FINE_SECONDS, KEPT_SECONDS, History
from tests.dashboard.test_history import NOW, totals


def machine(*, begin: int, end: int, per_second: int, every: int = 5, memory: float = 10.0) -> History:
    """A history of so many requests a second, with a point every few seconds."""
    history = History()
    for time in range(begin, end + 1, every):
        history.add(totals(per_second * (time - begin), memory=memory), time)
    return history


def rates(fleet: Fleet) -> set[float]:
    """The different numbers of requests a second in the points."""
    return {round(point["requests"] / point.seconds, 6) for point in fleet.points}


def test_a_machine_alone_stays_as_it_is() -> None:
    """Nothing is recounted where there is nothing to add."""
    alone = machine(begin=NOW, end=NOW + 100, per_second=3)
    fleet = Fleet.of([alone])
    assert (1, alone.points, alone.window(), alone.routes()) == (
        fleet.machines, fleet.points, fleet.window, fleet.routes,
    )  # fmt: skip
    assert Fleet(1, [], None, {}) == Fleet.of([History()]) == Fleet.of([])


@pytest.mark.parametrize("shift", range(5))
@pytest.mark.parametrize("every", [5, 6, 7])
def test_machines_with_other_clocks_add_up(shift: int, every: int) -> None:
    """Steady machines that count at other seconds, and at other distances, are steady together."""
    one = machine(begin=NOW - 1200, end=NOW, per_second=3)
    other = machine(begin=NOW - 1200 + shift, end=NOW - shift, per_second=4, every=every)
    fleet = Fleet.of([one, other])
    both = [point for point in fleet.points if point.time > NOW - 1000]
    assert {7.0} == {round(point["requests"] / point.seconds, 6) for point in both}
    times = [point.time for point in fleet.points]
    assert sorted(set(times)) == times
    assert {5, COARSE_STEP_SECONDS} == {point.seconds for point in fleet.points}
    assert (
        len(both)
        <= (FINE_SECONDS + COARSE_STEP_SECONDS) / 5 + (1000 - FINE_SECONDS) / COARSE_STEP_SECONDS + 1
    )
    assert NOW - 20 < times[-1] <= NOW


def test_the_last_minutes_are_counted_exactly() -> None:
    """The key metrics are whole requests: the sum of what each machine counted; its gauges add up, memory does not."""
    one = machine(begin=NOW - 600, end=NOW, per_second=3, memory=20.0)
    other = machine(begin=NOW - 599, end=NOW - 4, per_second=4, memory=80.0)
    fleet = Fleet.of([one, other])
    assert fleet.window is not None
    windows = [history.window() for history in (one, other)]
    assert sum(window["requests"] for window in windows if window) == fleet.window["requests"]
    assert (20, 80.0) == (fleet.window["pool_size"], fleet.window["memory_percent"])
    (row,) = fleet.routes.values()
    assert sum(sum(history.routes()["GET /api/classes"]) for history in (one, other)) == sum(row)


def test_a_machine_that_has_ended_is_history() -> None:
    """What it counted stays in the charts; it is no part of the present any more, and holds nobody up."""
    ended = machine(begin=NOW - 1200, end=NOW - 600, per_second=5)
    living = machine(begin=NOW - 600, end=NOW, per_second=2)
    fleet = Fleet.of([living, ended])
    assert 1 == fleet.machines
    assert living.window() == fleet.window
    assert {5.0, 2.0} <= rates(fleet)
    assert NOW == fleet.points[-1].time
    assert (
        2 == Fleet.of([living, machine(begin=NOW - 600, end=NOW - LIVE_SECONDS + 5, per_second=1)]).machines
    )


def test_a_time_without_anybody_is_a_gap() -> None:
    """Nothing is drawn where no machine counted; and nothing older than the history is kept."""
    first = machine(begin=NOW - 3000, end=NOW - 2000, per_second=5)
    first.add(totals(100_000), NOW - 500)  # it stood still, and went on
    first.add(totals(100_050), NOW - 495)
    fleet = Fleet.of([first, machine(begin=NOW - 400, end=NOW, per_second=2)])
    silent = [point for point in fleet.points if NOW - 1900 < point.time <= NOW - 500 - GAP_SECONDS]
    assert [] == silent
    old = machine(begin=NOW - KEPT_SECONDS - 600, end=NOW - KEPT_SECONDS + 60, per_second=1)
    young = machine(begin=NOW - 60, end=NOW, per_second=1)
    assert min(point.time for point in Fleet.of([old, young]).points) > NOW - KEPT_SECONDS

"""Mastery, the next review and streaks, against a calendar that is walked day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.scheduling import continue_streak, mastery_of, next_review
from server.domain.values import iso_timestamp, percentage

ZONES = [ZoneInfo(name) for name in (
    "UTC", "Europe/Berlin", "America/New_York", "America/Havana", "America/Santiago", "Asia/Beirut", "Africa/Cairo",
    "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Tehran",
)]  # fmt: skip
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


def test_confidence_decides_mastery_and_review() -> None:
    """The whole table of the contract."""
    table = {level: (mastery_of(level), next_review(level, NOON) - NOON) for level in range(1, 6)}
    assert {
        1: ("new", timedelta(hours=12)),
        2: ("new", timedelta(hours=12)),
        3: ("learning", timedelta(days=1)),
        4: ("mastered", timedelta(days=3)),
        5: ("mastered", timedelta(days=7)),
    } == table


def walk_back(days_studied: set[date], today: date) -> int:
    """The streak by definition: how many days in a row, up to today, were studied on."""
    length = 0
    while today in days_studied:
        length += 1
        today -= timedelta(days=1)
    return length


MOMENTS = st.lists(
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31)).map(lambda moment: moment.replace(tzinfo=UTC)),  # noqa: DTZ001
    min_size=1,
    max_size=8,
)
GAPS = st.lists(st.integers(0, 60), min_size=1, max_size=12)  # hours


@settings(max_examples=300, deadline=None)
@given(zone=st.sampled_from(ZONES), start=MOMENTS.map(min), gaps=GAPS)
def test_a_streak_counts_the_days_of_the_users_calendar(
    zone: ZoneInfo, start: datetime, gaps: list[int]
) -> None:
    """In every zone, across every change of the clocks, the streak is what a calendar on the wall would show."""
    days, active, lapses_at = 0, None, start
    studied: set[date] = set()
    moment = start
    for hours in gaps:
        moment += timedelta(hours=hours)
        today = moment.astimezone(zone).date()
        if moment >= lapses_at:
            days = 0  # as lock_user_stats reads it
        studied.add(today)
        streak = continue_streak(days, active, moment, zone)
        days, active, lapses_at = streak.days, streak.last_active_date, streak.lapses_at
        assert walk_back(studied, today) == days
        assert today == active
        # It lapses at the first moment of the day after tomorrow, not a minute earlier.
        assert today + timedelta(days=2) == lapses_at.astimezone(UTC).astimezone(zone).date()
        before = lapses_at.astimezone(UTC) - timedelta(minutes=1)
        assert today + timedelta(days=1) == before.astimezone(zone).date()


@pytest.mark.parametrize(
    ("moment", "zone", "expected"),
    [
        # 28 March 2026, 23:30 in New York and in UTC: not the same day.
        (datetime(2026, 3, 29, 3, 30, tzinfo=UTC), "America/New_York", date(2026, 3, 28)),
        (datetime(2026, 3, 29, 3, 30, tzinfo=UTC), "UTC", date(2026, 3, 29)),
        (datetime(2026, 3, 28, 11, tzinfo=UTC), "Pacific/Kiritimati", date(2026, 3, 29)),
        (datetime(2026, 3, 28, 11, tzinfo=UTC), "Etc/GMT+12", date(2026, 3, 27)),
    ],
)
def test_the_day_is_the_users(moment: datetime, zone: str, expected: date) -> None:
    """The day of studying is the one on the user's wall."""
    assert expected == continue_streak(0, None, moment, ZoneInfo(zone)).last_active_date


def test_travelling_west_does_not_end_a_streak() -> None:
    """Who meets yesterday again, or even the day before, keeps the streak and its last day."""
    east = continue_streak(4, date(2026, 3, 27), datetime(2026, 3, 27, 10, 30, tzinfo=UTC), ZONES[9])
    assert (5, date(2026, 3, 28)) == (east.days, east.last_active_date)
    west = continue_streak(5, east.last_active_date, datetime(2026, 3, 27, 10, 45, tzinfo=UTC), ZONES[10])
    assert (5, date(2026, 3, 28)) == (west.days, west.last_active_date)


@given(part=st.integers(0, 5000), rest=st.integers(0, 5000))
def test_percentages_are_rounded_half_up(part: int, rest: int) -> None:
    """0.5 goes up; 100 only when complete or nearly so; nothing of nothing is 0."""
    whole = part + rest
    assert percentage(part, whole) == (int(part * 100 / whole + 0.5) if whole else 0)


@pytest.mark.parametrize(
    ("part", "whole", "expected"), [(1, 8, 13), (1, 200, 1), (1, 201, 0), (199, 200, 100)]
)
def test_a_half_goes_up(part: int, whole: int, expected: int) -> None:
    """12.5 is 13, where rounding to even would say 12."""
    assert expected == percentage(part, whole)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 1, 31, 9, 30, tzinfo=UTC), "2026-01-31T09:30:00.000Z"),
        (datetime(2026, 1, 31, 9, 30, 0, 999_999, tzinfo=UTC), "2026-01-31T09:30:00.999Z"),
        (datetime(2026, 1, 31, 1, 30, tzinfo=ZoneInfo("Asia/Kolkata")), "2026-01-30T20:00:00.000Z"),
    ],
)
def test_times_are_utc_with_milliseconds(moment: datetime, expected: str) -> None:
    """Always three digits and Z, whatever the zone, never rounded into the future."""
    assert expected == iso_timestamp(moment)

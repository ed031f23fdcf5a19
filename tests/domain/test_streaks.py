"""Streaks, against a calendar that is walked day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.streaks import Streak, continue_streak

ZONES = [ZoneInfo(name) for name in (
    "UTC", "Europe/Berlin", "America/New_York", "America/Havana", "America/Santiago", "Asia/Beirut", "Africa/Cairo",
    "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Tehran",
)]  # fmt: skip
BERLIN, KIRITIMATI, BAKER_ISLAND = ZONES[1], ZONES[9], ZONES[10]
NEVER = Streak(0, None, datetime.min.replace(tzinfo=UTC))


def walk_back(days_studied: set[date], today: date) -> int:
    """The streak by definition: how many days in a row, up to today, were studied on."""
    length = 0
    while today in days_studied:
        length += 1
        today -= timedelta(days=1)
    return length


MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
GAPS = st.lists(st.integers(0, 60), min_size=1, max_size=12)  # hours


@settings(max_examples=300, deadline=None)
@given(zone=st.sampled_from(ZONES), moment=MOMENTS, gaps=GAPS)
def test_a_streak_counts_the_days_of_the_users_calendar(
    zone: ZoneInfo, moment: datetime, gaps: list[int]
) -> None:
    """In every zone, across every change of the clocks, the streak is what a calendar on the wall would show."""
    streak = NEVER
    studied: set[date] = set()
    for hours in gaps:
        moment += timedelta(hours=hours)
        today = moment.astimezone(zone).date()
        studied.add(today)
        streak = continue_streak(streak, moment, zone)
        assert (walk_back(studied, today), today) == (streak.days, streak.last_active_date)
        # It lapses at the first moment of the day after tomorrow, not a minute earlier.
        assert today + timedelta(days=2) == streak.lapses_at.astimezone(UTC).astimezone(zone).date()
        before = streak.lapses_at.astimezone(UTC) - timedelta(minutes=1)
        assert today + timedelta(days=1) == before.astimezone(zone).date()


@settings(deadline=None)
@given(zone=st.sampled_from(ZONES), moments=st.lists(MOMENTS, min_size=2, max_size=8))
def test_a_day_that_has_passed_changes_nothing(zone: ZoneInfo, moments: list[datetime]) -> None:
    """An offline device that comes back with older days leaves the streak as it is."""
    streak = NEVER
    for moment in sorted(moments):
        streak = continue_streak(streak, moment, zone)
    for moment in moments:
        assert streak == continue_streak(streak, moment, zone)


@pytest.mark.parametrize(
    ("moment", "zone", "expected"),
    [
        # 28 March 2026, 23:30 in New York: in UTC it is the next day.
        (datetime(2026, 3, 29, 3, 30, tzinfo=UTC), "America/New_York", date(2026, 3, 28)),
        (datetime(2026, 3, 29, 3, 30, tzinfo=UTC), "UTC", date(2026, 3, 29)),
        (datetime(2026, 3, 28, 11, tzinfo=UTC), "Pacific/Kiritimati", date(2026, 3, 29)),
        (datetime(2026, 3, 28, 11, tzinfo=UTC), "Etc/GMT+12", date(2026, 3, 27)),
    ],
)
def test_the_day_is_the_users(moment: datetime, zone: str, expected: date) -> None:
    """The day of studying is the one on the user's wall."""
    assert expected == continue_streak(NEVER, moment, ZoneInfo(zone)).last_active_date


def test_travelling_west_does_not_end_a_streak() -> None:
    """Who meets yesterday again, or even the day before, keeps the streak and its last day."""
    streak = Streak(4, date(2026, 3, 27), datetime(2026, 3, 29, tzinfo=KIRITIMATI))
    east = continue_streak(streak, datetime(2026, 3, 27, 10, 30, tzinfo=UTC), KIRITIMATI)
    assert (5, date(2026, 3, 28)) == (east.days, east.last_active_date)
    west = continue_streak(east, datetime(2026, 3, 27, 10, 45, tzinfo=UTC), BAKER_ISLAND)
    assert (5, date(2026, 3, 28)) == (west.days, west.last_active_date)


def test_a_streak_goes_on_until_the_instant_at_which_it_was_said_to_end() -> None:
    """Whatever the date is by then where the user has gone: until then they were shown the streak, from then on 0."""
    streak = Streak(6, date(2026, 3, 1), datetime(2026, 3, 3, tzinfo=BERLIN))
    last_moment = datetime(2026, 3, 2, 22, 59, 59, tzinfo=UTC)
    assert 7 == continue_streak(streak, last_moment, KIRITIMATI).days
    assert 1 == continue_streak(streak, last_moment + timedelta(seconds=1), BAKER_ISLAND).days

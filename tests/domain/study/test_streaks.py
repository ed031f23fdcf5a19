"""Streaks, against a calendar that is walked day by day, in whatever order the days arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.domain.study.activity import active_days
from tests.sql.older_releases import record_now
from tests.support.properties import examples

ZONES = [ZoneInfo(name) for name in (
    "UTC", "Europe/Berlin", "America/New_York", "America/Havana", "America/Santiago", "Asia/Beirut", "Africa/Cairo",
    "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Tehran",
)]  # fmt: skip
BERLIN, KIRITIMATI, BAKER_ISLAND = ZONES[1], ZONES[9], ZONES[10]

CARD = """
    WITH c AS (INSERT INTO classes (name, is_published) VALUES ('C', true) RETURNING id),
         d AS (INSERT INTO decks (class_id, name, is_published) SELECT id, 'D', true FROM c RETURNING id)
    INSERT INTO flashcards (deck_id, question, answer, is_published) SELECT id, 'Q', 'A', true FROM d RETURNING id::text
"""

Streak = tuple[int, date, datetime]
Study = Callable[[Sequence[datetime], ZoneInfo], Streak]


@pytest.fixture
def study(database_url: str) -> Iterator[tuple[Study, Callable[[], None]]]:
    """Two functions: record moments of studying, which gives the streak; and forget all of them."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO users (email) VALUES ('student@example.com') RETURNING id::text")
        (user_id,) = cursor.fetchone() or (None,)
        cursor.execute(CARD)
        (card_id,) = cursor.fetchone() or (None,)

        def record(moments: Sequence[datetime], zone: ZoneInfo) -> Streak:
            record_now(cursor, user_id, [(card_id, 3, moment) for moment in moments], zone)
            cursor.execute("SELECT study_streak_days, last_active_date, streak_lapses_at FROM user_stats")
            ((days_in_a_row, last, lapses_at),) = cursor.fetchall()
            return days_in_a_row, last, lapses_at

        def forget() -> None:
            cursor.execute("DELETE FROM user_active_days")
            cursor.execute("DELETE FROM review_log")
            cursor.execute("UPDATE user_stats SET study_streak_days = 0, streak_lapses_at = '-infinity'")

        yield record, forget


def test_a_day_begins_with_its_first_moment() -> None:
    """In whatever order the moments come: whether a streak still lived is a question to the first one of a day."""
    moments = [datetime(2026, 3, day, hour, tzinfo=UTC) for day, hour in ((2, 20), (2, 7), (1, 9), (2, 12))]
    days = [(day.day, day.first_at) for day in active_days(moments, BERLIN)]
    assert [(date(2026, 3, 1), moments[2]), (date(2026, 3, 2), moments[1])] == days


def walk_back(days_studied: set[date]) -> int:
    """The streak by definition: how many days in a row, up to the last one, were studied on."""
    today, length = max(days_studied), 0
    while today in days_studied:
        length += 1
        today -= timedelta(days=1)
    return length


MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
GAPS = st.lists(st.integers(0, 60), min_size=1, max_size=12)  # hours
ON_A_DATABASE = settings(
    max_examples=examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ON_A_DATABASE
@given(data=st.data(), zone=st.sampled_from(ZONES), moment=MOMENTS, gaps=GAPS)
def test_a_streak_is_what_a_calendar_shows_in_whatever_order_days_arrive(
    study: tuple[Study, Callable[[], None]],
    data: st.DataObject,
    zone: ZoneInfo,
    moment: datetime,
    gaps: list[int],
) -> None:
    """In every zone, across every change of the clocks, whichever device comes back first, alone or in batches."""
    record, forget = study
    forget()
    moments = []
    for hours in gaps:
        moment += timedelta(hours=hours)
        moments.append(moment)
    left, seen = data.draw(st.permutations(moments), label="arrivals"), set[date]()
    while left:
        size = data.draw(st.integers(1, len(left)), label="batch")
        batch, left = left[:size], left[size:]
        seen |= {one.astimezone(zone).date() for one in batch}
        days, last, lapses_at = record(batch, zone)
        assert (walk_back(seen), max(seen)) == (days, last)
        # It lapses at the first moment of the day after tomorrow, not a minute earlier.
        assert last + timedelta(days=2) == lapses_at.astimezone(zone).date()
        before = lapses_at.astimezone(UTC) - timedelta(minutes=1)
        assert last + timedelta(days=1) == before.astimezone(zone).date()


@ON_A_DATABASE
@given(
    data=st.data(),
    moment=MOMENTS,
    travels=st.lists(st.tuples(st.integers(0, 50), st.sampled_from(ZONES)), min_size=2, max_size=8),
)
def test_the_order_of_arrival_does_not_matter_to_a_traveller_either(
    study: tuple[Study, Callable[[], None]],
    data: st.DataObject,
    moment: datetime,
    travels: list[tuple[int, ZoneInfo]],
) -> None:
    """Wherever the days were studied on: the same moments in another order are the same streak."""
    record, forget = study
    moments = []
    for hours, zone in travels:
        moment += timedelta(hours=hours)
        moments.append((moment, zone))
    streaks = []
    for order in (moments, data.draw(st.permutations(moments), label="arrivals")):
        forget()
        for at, zone in order:
            last = record([at], zone)
        streaks.append(last)
    assert streaks[0] == streaks[1]


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
    assert [expected] == [day.day for day in active_days([moment], ZoneInfo(zone))]


def test_travelling_west_does_not_end_a_streak(study: tuple[Study, Callable[[], None]]) -> None:
    """Who meets yesterday again, or even the day before, keeps the streak and its last day."""
    record, _ = study
    record([datetime(2026, 3, 27, 3, tzinfo=UTC)], KIRITIMATI)
    assert (2, date(2026, 3, 28)) == record([datetime(2026, 3, 27, 10, 30, tzinfo=UTC)], KIRITIMATI)[:2]
    # It is the evening of the 26th there: a day more, and the last one is still the 28th.
    assert (3, date(2026, 3, 28)) == record([datetime(2026, 3, 27, 10, 45, tzinfo=UTC)], BAKER_ISLAND)[:2]
    # Rated on the 28th of Baker Island, the 29th has not begun there, and the streak lives to its end.
    days, last, lapses_at = record([datetime(2026, 3, 29, 9, tzinfo=UTC)], BAKER_ISLAND)
    assert (3, date(2026, 3, 28)) == (days, last)
    assert datetime(2026, 3, 30, 12, tzinfo=UTC) == lapses_at


def test_a_streak_goes_on_until_the_instant_at_which_it_was_said_to_end(
    study: tuple[Study, Callable[[], None]],
) -> None:
    """Whatever the date is by then where the user has gone: until then they were shown the streak, from then on 0."""
    record, forget = study
    evening = datetime(2026, 3, 1, 20, tzinfo=UTC)
    assert (1, date(2026, 3, 1), datetime(2026, 3, 2, 23, tzinfo=UTC)) == record([evening], BERLIN)
    last_moment = datetime(2026, 3, 2, 22, 59, 59, tzinfo=UTC)
    assert (2, date(2026, 3, 3)) == record([last_moment], KIRITIMATI)[:2]
    forget()
    record([evening], BERLIN)
    assert 1 == record([last_moment + timedelta(seconds=1)], BAKER_ISLAND)[0]

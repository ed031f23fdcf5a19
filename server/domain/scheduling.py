"""When a rated card comes back, what its rating says of mastery, and how a day counts for a streak."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from typing import Literal
from zoneinfo import ZoneInfo

Mastery = Literal["new", "learning", "mastered"]

MINIMUM_CONFIDENCE = 1
MAXIMUM_CONFIDENCE = 5
_LEARNING = 3
_MOST_TRAVELLED = timedelta(days=2)
_REVIEW_AFTER = {
    1: timedelta(hours=12),
    2: timedelta(hours=12),
    3: timedelta(days=1),
    4: timedelta(days=3),
    5: timedelta(days=7),
}


def mastery_of(confidence_level: int) -> Mastery:
    """4 and 5 are mastered, 3 is learning, 1 and 2 are new."""
    if confidence_level > _LEARNING:
        return "mastered"
    return "learning" if confidence_level == _LEARNING else "new"


def next_review(confidence_level: int, rated_at: datetime) -> datetime:
    """When a card is due again, by the fixed table: 12 hours for 1 and 2, then 1, 3 and 7 days."""
    return rated_at + _REVIEW_AFTER[confidence_level]


@dataclass(frozen=True, slots=True)
class Streak:
    """Days in a row on which a user studied."""

    days: int
    last_active_date: date
    # Midnight in the user's time zone at the end of the day after the last active one.
    lapses_at: datetime


def continue_streak(days: int, last_active_date: date | None, now: datetime, zone: ZoneInfo) -> Streak:
    """The streak after studying now: one longer on the day after, the same on the same day, else 1.

    Args:
        days: the streak so far.
        last_active_date: the user's local date when they last studied; None if never.
        now: the moment of studying.
        zone: where the user's days begin. A user who travels west can meet yesterday again, or even the day before
            (zones reach from UTC-12 to UTC+14): the later day is kept.
    """
    today = now.astimezone(zone).date()
    if last_active_date is None:
        length, active = 1, today
    elif today <= last_active_date <= today + _MOST_TRAVELLED:
        length, active = max(days, 1), last_active_date
    elif last_active_date == today - timedelta(days=1):
        length, active = days + 1, today
    else:
        length, active = 1, today
    lapses_at = datetime.combine(active + timedelta(days=2), time_of_day.min, tzinfo=zone)
    return Streak(length, active, lapses_at)

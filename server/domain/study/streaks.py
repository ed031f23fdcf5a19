"""Days on which a user studied, counted where they live. Days in a row are a streak.

A streak lives until midnight at the end of the day after its last one, in the zone in which that was counted; whoever
studies before that instant continues it, whatever the date is by then where they are: what they were shown is what goes
on. The runs of days are found by the trigger `keep_streaks` (sql/schema.sql).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class ActiveDay:
    """A day of studying: its date, its first moment, and the instant at which a streak that it ends is over."""

    day: date
    first_at: datetime
    lapses_at: datetime


def active_day(moment: datetime, zone: ZoneInfo) -> ActiveDay:
    """The day of a moment of studying where the user's days begin in a time zone."""
    day = moment.astimezone(zone).date()
    return ActiveDay(day, moment, datetime.combine(day + timedelta(days=2), time_of_day.min, tzinfo=zone))


def merge_days(days: Iterable[ActiveDay]) -> list[ActiveDay]:
    """Each day once, from its first moment, in their order."""
    merged: dict[date, ActiveDay] = {}
    for one in sorted(days, key=lambda one: one.first_at):
        merged.setdefault(one.day, one)
    return [merged[day] for day in sorted(merged)]


def active_days(moments: Iterable[datetime], zone: ZoneInfo) -> list[ActiveDay]:
    """The days of some moments, in their order.

    Args:
        moments: of studying, in any order.
        zone: where the user's days begin.
    """
    return merge_days(active_day(moment, zone) for moment in moments)

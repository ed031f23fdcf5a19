"""Days on which a user studied, counted where they live. Days in a row are a streak.

A streak lives until midnight at the end of the day after its last one, in the zone in which that was counted; whoever
studies before that instant continues it, whatever the date is by then where they are: what they were shown is what goes
on. The runs of days are found by the trigger `keep_streaks` (sql/migrations/0007_active_days.sql).
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


def active_days(moments: Iterable[datetime], zone: ZoneInfo) -> list[ActiveDay]:
    """The days of some moments, in their order.

    Args:
        moments: of studying, in any order.
        zone: where the user's days begin.
    """
    first_ats: dict[date, datetime] = {}
    for moment in sorted(moments):
        first_ats.setdefault(moment.astimezone(zone).date(), moment)
    return [
        ActiveDay(day, first_at, datetime.combine(day + timedelta(days=2), time_of_day.min, tzinfo=zone))
        for day, first_at in sorted(first_ats.items())
    ]

"""Days in a row on which a user studied, counted where they live."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Streak:
    """Days in a row: how many, which was the last, and at which instant the streak is over without another one."""

    days: int
    last_active_date: date | None
    # Midnight in the user's time zone at the end of the day after the last active one; from then on it reads 0.
    lapses_at: datetime


def continue_streak(streak: Streak, at: datetime, zone: ZoneInfo) -> Streak:
    """The streak after studying at a moment: one longer on the next day, 1 after a break.

    A streak lives until the instant `lapses_at`, whatever the date is by then where the user is: what they were shown
    is what goes on. A day that is not later than the last one (a traveller can meet yesterday again; a device comes
    back from being offline) adds nothing.

    Args:
        streak: so far; for several moments, go through them from old to new.
        at: the moment of studying.
        zone: where the user's days begin.
    """
    day = at.astimezone(zone).date()
    last = day if streak.last_active_date is None else max(day, streak.last_active_date)
    days = 1 if at >= streak.lapses_at else streak.days + (last != streak.last_active_date)
    return Streak(days, last, datetime.combine(last + timedelta(days=2), time_of_day.min, tzinfo=zone))

"""Study activity and streaks. A user's `user_stats` row is locked first by every write of theirs.

A day of study is counted in the user's time zone. Days in a row are a streak. It lives until midnight at the end of the
day after its last one, in the zone in which that day was counted; studying before that instant continues it, whatever
the date is by then where the user is. The trigger `keep_streaks` finds the runs of days (sql/schema.sql).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from uuid import UUID
from zoneinfo import ZoneInfo

from server.errors import AccountGone
from server.stores.postgres.database import Transaction


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


def active_days(moments: Iterable[datetime], zone: ZoneInfo) -> list[ActiveDay]:
    """The days of some moments in their order, each once, from its first moment.

    Args:
        moments: of studying, in any order.
        zone: where the user's days begin.
    """
    days: dict[date, ActiveDay] = {}
    for moment in sorted(moments):
        day = active_day(moment, zone)
        days.setdefault(day.day, day)
    return [days[day] for day in sorted(days)]


async def lock_activity(transaction: Transaction, user_id: UUID) -> None:
    """Lock a user's figures until the transaction ends: their writes happen one after another.

    A write that locks cards as well locks them before. Ratings do the same in their function (record_ratings).

    Raises:
        AccountGone: the user no longer exists.
    """
    if await transaction.fetch_one("lock_user_stats", user_id=user_id) is None:
        raise AccountGone

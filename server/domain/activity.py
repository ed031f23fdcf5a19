"""That a user studies, and since when without a break. Their row of user_stats is the lock of all that they write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from server.domain.streaks import Streak, continue_streak
from server.errors import AccountGone
from server.stores.database import Transaction


@dataclass(frozen=True, slots=True)
class Activity:
    """What is kept of a user's activity, and their own time zone."""

    streak: Streak
    last_active_at: datetime
    zone: ZoneInfo


async def lock_activity(transaction: Transaction, user_id: UUID) -> Activity:
    """A user's activity, locked until the transaction ends: their writes happen one after another.

    Whoever locks cards as well locks them before.

    Raises:
        AccountGone: the user no longer exists.
    """
    row = await transaction.fetch_one("lock_user_stats", user_id=user_id)
    if row is None:
        raise AccountGone
    streak = Streak(row["study_streak_days"], row["last_active_date"], row["streak_lapses_at"])
    return Activity(streak, row["last_active_at"], ZoneInfo(row["time_zone"]))


async def record_activity(
    transaction: Transaction,
    user_id: UUID,
    activity: Activity,
    moments: Iterable[datetime],
    zone: ZoneInfo | None,
) -> None:
    """The user has studied at these moments, maybe offline and days ago: each of the days counts.

    Args:
        transaction: in which the activity was locked.
        user_id: whose it is.
        activity: as lock_activity gave it.
        moments: in any order.
        zone: where the user's day begins; None for their own.
    """
    streak, last_active_at = activity.streak, activity.last_active_at
    for moment in sorted(moments):
        streak = continue_streak(streak, moment, zone or activity.zone)
        last_active_at = max(last_active_at, moment)
    await transaction.execute(
        "record_activity",
        user_id=user_id,
        active_at=last_active_at,
        active_date=streak.last_active_date,
        streak_days=streak.days,
        lapses_at=streak.lapses_at,
    )

"""Study activity, streaks, and the figures that are kept of both, for students and for administrators.

A user's `user_stats` row is locked first by every write of theirs. A day of study is counted in the user's time zone.
Days in a row are a streak. It lives until midnight at the end of the day after its last one, in the zone in which that
day was counted; studying before that instant continues it, whatever the date is by then where the user is. The trigger
`keep_streaks` finds the runs of days (sql/schema.sql).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Literal, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

from server.domain.values import describe_user, percentage
from server.errors import AccountGone, NotFound
from server.stores.postgres.database import Database, Transaction

UserOrder = Literal["recent", "studied", "streak"]
USER_ORDERS: tuple[UserOrder, ...] = get_args(UserOrder)
Page = list[dict[str, Any]]
# The position before the first row of the ranking by streak: days, days of a streak that has lapsed, when it lapses.
_LONGEST_STREAK = "1000000000 0 infinity"
_LAST_ID = UUID(int=2**128 - 1)


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


async def get_user_stats(database: Database, user_id: UUID) -> dict[str, Any]:
    """A user's own figures, as a row.

    Raises:
        AccountGone: the account no longer exists.
    """
    row = await database.fetch_one("get_user_stats", user_id=user_id)
    if row is None:
        raise AccountGone
    return row


async def list_users(
    database: Database, order: UserOrder, *, before: tuple[str, UUID] | None, page_size: int
) -> Page:
    """Rows of users in an order, after a position (the `rank` and `id` of a row): one query, however many users."""
    rank, user_id = before if before is not None else (None, None)
    if order == "streak":
        days, ended_days, lapses_at = (rank or _LONGEST_STREAK).split(" ", 2)
        return await database.fetch_all(
            "list_users_by_streak",
            before_days=int(days),
            before_ended_days=int(ended_days),
            before_lapses_at=lapses_at,
            before_id=user_id or _LAST_ID,
            page_size=page_size,
        )
    query = {"recent": "list_users_by_recent", "studied": "list_users_by_studied"}[order]
    return await database.fetch_all(query, before_rank=rank, before_id=user_id, page_size=page_size)


async def get_user_figures(database: Database, user_id: UUID) -> dict[str, Any]:
    """One user with their figures, and their progress class by class: two queries, however many classes.

    Raises:
        NotFound: there is no such user.
    """
    row = await database.fetch_one("get_user_figures", user_id=user_id)
    if row is None:
        raise NotFound("There is no such user.")
    classes = await database.fetch_all("list_user_classes", user_id=user_id)
    return {**describe_user_figures(row), "classes": [_class_progress(entry) for entry in classes]}


def describe_user_figures(row: dict[str, Any]) -> dict[str, Any]:
    """A listed user in the form of the API."""
    return {
        **describe_user(row),
        **_stats(row),
        "masteryBreakdown": {
            "new": row["new_cards"],
            "learning": row["learning_cards"],
            "mastered": row["mastered_cards"],
        },
        "totalCardsInProgress": row["new_cards"] + row["learning_cards"],
    }


def _stats(row: dict[str, Any]) -> dict[str, Any]:
    last_active = row["last_active_date"]
    return {
        "totalCardsStudied": row["total_cards_studied"],
        "studyStreakDays": row["study_streak_days"],
        "totalStudyTime": row["total_study_time_seconds"],
        "lastActiveDate": None if last_active is None else last_active.isoformat(),
    }


def _class_progress(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "classId": str(row["class_id"]),
        "className": row["class_name"],
        "totalCards": row["total_cards"],
        "studiedCards": row["studied_cards"],
        "masteredCards": row["mastered_cards"],
        "learningCards": row["learning_cards"],
        "newCards": row["new_cards"],
        "progress": percentage(row["studied_cards"], row["total_cards"]),
    }

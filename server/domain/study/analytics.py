"""What admins see of the students: kept figures, read along an index, never counted on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, get_args
from uuid import UUID

from server.domain.identity.accounts import describe_user
from server.domain.values import percentage
from server.errors import AccountGone, NotFound
from server.stores.postgres.database import Database

UserOrder = Literal["recent", "studied", "streak"]
USER_ORDERS: tuple[UserOrder, ...] = get_args(UserOrder)
Page = list[dict[str, Any]]
_Lister = Callable[..., Awaitable[Page]]

# The position before the first row of the ranking by streak: days, days of a streak that has lapsed, when it lapses.
_LONGEST_STREAK = "1000000000 0 infinity"
_LAST_ID = UUID(int=2**128 - 1)


class Analytics:
    """Figures of users, for a page of them or for one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_user_stats(self, user_id: UUID) -> dict[str, Any]:
        """A user's own figures.

        Raises:
            AccountGone: the account no longer exists.
        """
        row = await self._database.fetch_one("get_user_stats", user_id=user_id)
        if row is None:
            raise AccountGone
        return _stats(row)

    async def list_users(self, order: UserOrder, *, before: tuple[str, UUID] | None, page_size: int) -> Page:
        """Rows of users in an order, after a position (the `rank` and `id` of a row): one query, however many users."""
        listers: dict[UserOrder, _Lister] = {
            "recent": self.list_users_by_recent,
            "studied": self.list_users_by_studied,
            "streak": self.list_users_by_streak,
        }
        rank, user_id = before if before is not None else (None, None)
        return await listers[order](before_rank=rank, before_id=user_id, page_size=page_size)

    async def list_users_by_recent(self, **page: Any) -> Page:
        """Most recently active first."""
        return await self._database.fetch_all("list_users_by_recent", **page)

    async def list_users_by_studied(self, **page: Any) -> Page:
        """Most cards studied first."""
        return await self._database.fetch_all("list_users_by_studied", **page)

    async def list_users_by_streak(
        self, *, before_rank: str | None, before_id: UUID | None, page_size: int
    ) -> Page:
        """Longest streak first; then those whose streak has lapsed, the latest first."""
        days, ended_days, lapses_at = (before_rank or _LONGEST_STREAK).split(" ", 2)
        return await self._database.fetch_all(
            "list_users_by_streak",
            before_days=int(days),
            before_ended_days=int(ended_days),
            before_lapses_at=lapses_at,
            before_id=before_id or _LAST_ID,
            page_size=page_size,
        )

    async def get_user_figures(self, user_id: UUID) -> dict[str, Any]:
        """One user with their figures, and their progress class by class: two queries, however many classes.

        Raises:
            NotFound: there is no such user.
        """
        row = await self._database.fetch_one("get_user_figures", user_id=user_id)
        if row is None:
            raise NotFound("There is no such user.")
        classes = await self._database.fetch_all("list_user_classes", user_id=user_id)
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

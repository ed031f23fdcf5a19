"""That a user studies, and when. Their row of user_stats is the lock of all that they write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from server.domain.study.streaks import ActiveDay, merge_days
from server.domain.zones import stored_zone
from server.errors import AccountGone
from server.stores.postgres.database import Transaction


@dataclass(frozen=True, slots=True)
class Activity:
    """When a user was last active, and their own time zone."""

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
    return Activity(row["last_active_at"], stored_zone(row["time_zone"]))


async def record_activity(
    transaction: Transaction,
    user_id: UUID,
    activity: Activity,
    moments: Sequence[ActiveDay],
    *,
    deck_ids: Iterable[UUID],
) -> list[dict[str, Any]]:
    """The user has studied at these moments, maybe offline and days ago: each of the days counts, late or not.

    Args:
        transaction: in which the activity was locked.
        user_id: whose it is.
        activity: as lock_activity gave it.
        moments: each as its day, in any order.
        deck_ids: the decks that are asked about in the same breath.

    Returns:
        For each of the decks and each mastery the number of published cards, rows without cards left out.
    """
    days = merge_days(moments)
    return await transaction.fetch_all(
        "record_activity",
        user_id=user_id,
        active_at=max(activity.last_active_at, *(moment.first_at for moment in moments)),
        days=[day.day for day in days],
        first_ats=[day.first_at for day in days],
        lapses_ats=[day.lapses_at for day in days],
        deck_ids=list(deck_ids),
    )

"""Ratings: what a student says of a card becomes progress, a session's figures and a streak, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from server.domain.overlays import overlay_keys
from server.domain.scheduling import continue_streak, mastery_of, next_review
from server.domain.values import iso_timestamp
from server.domain.vanished import vanished_as_not_found
from server.errors import AccountGone, Conflict, NotFound
from server.stores.cache import Cache
from server.stores.database import Database, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One judgement of one card; `rated_at` is None for one of this moment."""

    flashcard_id: UUID
    confidence_level: int
    session_id: UUID | None = None
    response_time_ms: int | None = None
    rated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Dated:
    """A rating, and when it was made."""

    rating: Rating
    at: datetime


class Progress:
    """Records ratings and reads progress back."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache

    async def get_card_progress(self, user_id: UUID, flashcard_id: UUID) -> dict[str, Any]:
        """A user's progress on a card.

        Raises:
            NotFound: the user has not rated it.
        """
        row = await self._database.fetch_one("get_card_progress", user_id=user_id, flashcard_id=flashcard_id)
        if row is None:
            raise NotFound("There is no progress on this card.")
        return _representation(row)

    async def record_ratings(
        self, user_id: UUID, ratings: Sequence[Rating], *, zone: ZoneInfo | None
    ) -> list[dict[str, Any]]:
        """Record ratings in one transaction and answer with the progress of their cards, in the order given.

        Args:
            user_id: who rates.
            ratings: one or more; a card may occur several times.
            zone: where the user's day begins; None for the profile's.

        Raises:
            NotFound: a card can't be rated, or a session is not the user's.
            AccountGone: the user no longer exists.
            Conflict: a session has ended.
        """
        stale: set[str] = set()

        async def record(transaction: Transaction) -> list[dict[str, Any]]:
            # Cards first, then what is the user's, as the deletion of a deck does: nobody waits for the other.
            class_of = await _find_rateable_cards(transaction, ratings)
            stats = await _lock_user_stats(transaction, user_id)
            # One after another, also where two hosts' clocks differ: a rating of now is the newest.
            now = max(datetime.now(UTC), stats["last_active_at"])
            dated = [_Dated(rating, rating.rated_at or now) for rating in ratings]
            await _check_sessions(transaction, user_id, ratings)
            rows = await _upsert_progress(transaction, user_id, dated)
            await _add_session_cards(transaction, dated)
            await record_activity(transaction, user_id, stats, now, zone)
            stale.update(key for class_id in class_of.values() for key in overlay_keys(user_id, class_id))
            return rows

        try:
            with vanished_as_not_found():
                # Again as a whole after a deadlock, or when the connection was lost before COMMIT.
                rows = await self._database.run_transaction(record)
        finally:
            # Also when the answer to COMMIT was lost, or nobody waits for ours any more.
            await self._cache.invalidate(stale)
        by_card = {row["flashcard_id"]: _representation(row) for row in rows}
        return [by_card[rating.flashcard_id] for rating in ratings]


async def record_activity(
    transaction: Transaction, user_id: UUID, stats: dict[str, Any], now: datetime, zone: ZoneInfo | None
) -> None:
    """The user studies at this moment: their streak goes on. `stats` is the locked row of lock_user_stats."""
    streak = continue_streak(
        stats["study_streak_days"], stats["last_active_date"], now, zone or ZoneInfo(stats["time_zone"])
    )
    await transaction.execute(
        "record_activity",
        user_id=user_id,
        active_at=now,
        active_date=streak.last_active_date,
        streak_days=streak.days,
        lapses_at=streak.lapses_at,
    )


async def _lock_user_stats(transaction: Transaction, user_id: UUID) -> dict[str, Any]:
    stats = await transaction.fetch_one("lock_user_stats", user_id=user_id)
    if stats is None:
        raise AccountGone
    return stats


async def _find_rateable_cards(transaction: Transaction, ratings: Sequence[Rating]) -> dict[UUID, UUID]:
    wanted = list({rating.flashcard_id for rating in ratings})
    rows = await transaction.fetch_all("find_rateable_cards", flashcard_ids=wanted)
    class_of = {row["id"]: row["class_id"] for row in rows}
    missing = [str(flashcard_id) for flashcard_id in wanted if flashcard_id not in class_of]
    if missing:
        raise NotFound(f"There is no such card: {', '.join(sorted(missing)[:10])}.")
    return class_of


async def _check_sessions(transaction: Transaction, user_id: UUID, ratings: Sequence[Rating]) -> None:
    wanted = {rating.session_id for rating in ratings if rating.session_id is not None}
    if not wanted:
        return
    rows = await transaction.fetch_all("find_own_sessions", user_id=user_id, session_ids=list(wanted))
    if len(rows) != len(wanted):
        raise NotFound("There is no such session.")
    if any(row["ended_at"] is not None for row in rows):
        raise Conflict("The session has ended; rate without it or start another one.")


async def _upsert_progress(
    transaction: Transaction, user_id: UUID, ratings: Sequence[_Dated]
) -> list[dict[str, Any]]:
    newest: dict[UUID, _Dated] = {}
    times: dict[UUID, int] = {}
    for dated in ratings:
        flashcard_id = dated.rating.flashcard_id
        times[flashcard_id] = times.get(flashcard_id, 0) + 1
        known = newest.get(flashcard_id)
        if known is None or dated.at >= known.at:
            newest[flashcard_id] = dated
    chosen = list(newest.values())
    confidence_levels = [dated.rating.confidence_level for dated in chosen]
    return await transaction.fetch_all(
        "record_ratings",
        user_id=user_id,
        flashcard_ids=[dated.rating.flashcard_id for dated in chosen],
        confidence_levels=confidence_levels,
        mastery_statuses=[mastery_of(confidence_level) for confidence_level in confidence_levels],
        times=[times[dated.rating.flashcard_id] for dated in chosen],
        seen_ats=[dated.at for dated in chosen],
        review_ats=[next_review(dated.rating.confidence_level, dated.at) for dated in chosen],
    )


async def _add_session_cards(transaction: Transaction, ratings: Sequence[_Dated]) -> None:
    in_session = [dated for dated in ratings if dated.rating.session_id is not None]
    if in_session:
        await transaction.execute(
            "add_session_cards",
            session_ids=[dated.rating.session_id for dated in in_session],
            flashcard_ids=[dated.rating.flashcard_id for dated in in_session],
            confidence_levels=[dated.rating.confidence_level for dated in in_session],
            response_times_ms=[dated.rating.response_time_ms for dated in in_session],
            rated_ats=[dated.at for dated in in_session],
        )


def _representation(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "flashcardId": str(row["flashcard_id"]),
        "confidenceLevel": row["confidence_level"],
        "masteryStatus": row["mastery_status"],
        "timesSeen": row["times_seen"],
        "lastSeenDate": iso_timestamp(row["last_seen_at"]),
        "nextReviewDate": iso_timestamp(row["next_review_at"]),
    }

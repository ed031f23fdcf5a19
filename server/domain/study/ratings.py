"""Ratings: a rated card becomes progress, a session's figures and a day of a streak, all or nothing.

A rating takes its locks in this order: the cards, the user's row of user_stats, and the user's own rows. So what two
devices of a user send at the same time happens one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from server.clock import iso_timestamp
from server.domain.study.activity import ActiveDay, active_day, lock_activity, record_activity
from server.domain.study.overlays import OverlaysToSee
from server.domain.study.repetition import Review, Standing, mastery_of, memorize, next_review
from server.domain.writing import Unit, vanished_as_not_found
from server.errors import Conflict, NotFound
from server.stores.postgres.database import Database, Transaction


async def get_card_progress(database: Database, user_id: UUID, flashcard_id: UUID) -> dict[str, Any]:
    """A user's progress on a card.

    Raises:
        NotFound: the user has not rated it.
    """
    row = await database.fetch_one("get_card_progress", user_id=user_id, flashcard_id=flashcard_id)
    if row is None:
        raise NotFound("There is no progress on this card.")
    return describe_progress(row)


def describe_progress(row: Mapping[str, Any]) -> dict[str, Any]:
    """A progress row in the form of the API."""
    return {
        "flashcardId": str(row["flashcard_id"]),
        "confidenceLevel": row["confidence_level"],
        "masteryStatus": row["mastery_status"],
        "timesSeen": row["times_seen"],
        "lastSeenDate": iso_timestamp(row["last_seen_at"]),
        "nextReviewDate": iso_timestamp(row["next_review_at"]),
    }


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
    """A rating, and when it was made: on which day of the user's."""

    rating: Rating
    day: ActiveDay

    @property
    def at(self) -> datetime:
        return self.day.first_at


async def record_ratings(
    unit: Unit, user_id: UUID, ratings: Sequence[Rating], *, zone: ZoneInfo | None
) -> list[dict[str, Any]]:
    """Record ratings, and answer with the progress of their cards, in the order given.

    Args:
        unit: the unit of work.
        user_id: whose ratings they are.
        ratings: one or more; a card may occur several times.
        zone: where the user's day begins; None for the profile's.

    Raises:
        NotFound: a card can't be rated, or a session is not the user's.
        AccountGone: the user no longer exists.
        Conflict: a session has ended.
    """
    transaction = unit.transaction
    with vanished_as_not_found():
        cards = await _find_rateable_cards(transaction, ratings)
        overlays = OverlaysToSee(unit, user_id, {card["class_id"] for card in cards.values()})
        activity = await lock_activity(transaction, user_id)
        await _check_sessions(transaction, user_id, ratings)
        # One after another, also where two hosts' clocks differ: a rating of now is the newest.
        now = max(datetime.now(UTC), activity.last_active_at)
        here = zone or activity.zone
        dated = [_Dated(rating, active_day(rating.rated_at or now, here)) for rating in ratings]
        await _add_reviews(transaction, user_id, dated)
        await _add_session_cards(transaction, dated)
        rows = await _upsert_progress(transaction, user_id, dated, cards)
        seen = await overlays.arrive()  # before the counts are read
        counts = await record_activity(
            transaction,
            user_id,
            activity,
            [entry.day for entry in dated],
            deck_ids={card["deck_id"] for card in cards.values()},
        )
    for one in seen:
        of_class = [card for card in cards.values() if card["class_id"] == one.class_id]
        deck_ids, card_ids = {card["deck_id"] for card in of_class}, {card["id"] for card in of_class}
        one.replace(
            unit,
            deck_ids=deck_ids,
            counts=[row for row in counts if row["deck_id"] in deck_ids],
            rated=[row for row in rows if row["flashcard_id"] in card_ids],
        )
    by_card = {row["flashcard_id"]: describe_progress(row) for row in rows}
    return [by_card[rating.flashcard_id] for rating in ratings]


async def _find_rateable_cards(
    transaction: Transaction, ratings: Sequence[Rating]
) -> dict[UUID, dict[str, Any]]:
    wanted = list({rating.flashcard_id for rating in ratings})
    rows = await transaction.fetch_all("find_rateable_cards", flashcard_ids=wanted)
    cards = {row["id"]: row for row in rows}
    missing = [str(flashcard_id) for flashcard_id in wanted if flashcard_id not in cards]
    if missing:
        raise NotFound(f"There is no such card: {', '.join(sorted(missing)[:10])}.")
    return cards


async def _check_sessions(transaction: Transaction, user_id: UUID, ratings: Sequence[Rating]) -> None:
    wanted = {rating.session_id for rating in ratings if rating.session_id is not None}
    if not wanted:
        return
    rows = await transaction.fetch_all("find_own_sessions", user_id=user_id, session_ids=list(wanted))
    if len(rows) != len(wanted):
        raise NotFound("There is no such session.")
    if any(row["ended_at"] is not None for row in rows):
        raise Conflict("The session has ended; rate without it or start another one.")


async def _add_reviews(transaction: Transaction, user_id: UUID, ratings: Sequence[_Dated]) -> None:
    await transaction.execute(
        "add_reviews",
        user_id=user_id,
        flashcard_ids=[dated.rating.flashcard_id for dated in ratings],
        confidence_levels=[dated.rating.confidence_level for dated in ratings],
        response_times_ms=[dated.rating.response_time_ms for dated in ratings],
        rated_ats=[dated.at for dated in ratings],
        days=[dated.day.day for dated in ratings],
        lapses_ats=[dated.day.lapses_at for dated in ratings],
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


async def _upsert_progress(
    transaction: Transaction,
    user_id: UUID,
    ratings: Sequence[_Dated],
    cards: Mapping[UUID, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    reviews: dict[UUID, list[Review]] = {}
    for dated in sorted(
        ratings, key=lambda entry: entry.at
    ):  # stable: the order given is the order of equals
        review = Review(dated.rating.confidence_level, dated.at)
        reviews.setdefault(dated.rating.flashcard_id, []).append(review)
    standings = {card: Standing(given[-1], next_review(given[-1])) for card, given in reviews.items()}
    spaced = {card: given for card, given in reviews.items() if cards[card]["scheduler"] == "fsrs"}
    standings |= await memorize(transaction, user_id, spaced)
    return await transaction.fetch_all(
        "record_ratings",
        user_id=user_id,
        flashcard_ids=list(standings),
        confidence_levels=[standing.newest.confidence_level for standing in standings.values()],
        mastery_statuses=[mastery_of(standing.newest.confidence_level) for standing in standings.values()],
        times=[len(reviews[card]) for card in standings],
        seen_ats=[standing.newest.at for standing in standings.values()],
        review_ats=[standing.due_at for standing in standings.values()],
    )

"""How far a student is with a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from server.clock import iso_timestamp
from server.errors import NotFound
from server.stores.postgres.database import Database


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

"""Bookmarks: cards that a student wants to find again."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from server.clock import iso_timestamp
from server.domain.study.activity import lock_activity
from server.domain.study.sessions import Position
from server.domain.writing import Unit, vanished_as_not_found
from server.errors import NotFound
from server.stores.postgres.database import Database


async def add_bookmark(unit: Unit, user_id: UUID, flashcard_id: UUID) -> tuple[bool, dict[str, Any]]:
    """Bookmark a card: whether it is new, and the bookmark.

    Raises:
        NotFound: there is no such published card.
        AccountGone: the user no longer exists.
    """
    transaction = unit.transaction
    if not await transaction.fetch_all("find_rateable_cards", flashcard_ids=[flashcard_id]):
        raise NotFound("There is no such card.")
    await lock_activity(
        transaction, user_id
    )  # an addition and a deletion at the same time happen one after the other
    with vanished_as_not_found():
        row = await transaction.fetch_one("add_bookmark", user_id=user_id, flashcard_id=flashcard_id)
    is_new = row is not None
    row = row or await transaction.fetch_one("get_bookmark", user_id=user_id, flashcard_id=flashcard_id)
    if row is None:
        raise RuntimeError("a bookmark neither is nor becomes")
    return is_new, _bookmark(flashcard_id, row["created_at"])


async def delete_bookmark(unit: Unit, user_id: UUID, flashcard_id: UUID) -> None:
    """Forget a bookmark; one that is not there is forgotten already.

    Raises:
        AccountGone: the user no longer exists.
    """
    await lock_activity(unit.transaction, user_id)
    await unit.transaction.execute("delete_bookmark", user_id=user_id, flashcard_id=flashcard_id)


async def list_bookmarks(
    database: Database, user_id: UUID, *, before: Position, page_size: int
) -> list[dict[str, Any]]:
    """Rows of a user's bookmarks, newest first, after a position."""
    return await database.fetch_all(
        "list_bookmarks",
        user_id=user_id,
        before_created=before[0],
        before_id=before[1],
        page_size=page_size,
    )


def describe_bookmark(row: dict[str, Any]) -> dict[str, Any]:
    """A listed bookmark in the form of the API."""
    return {
        **_bookmark(row["flashcard_id"], row["created_at"]),
        "question": row["question"],
        "answer": row["answer"],
        "deckId": str(row["deck_id"]),
        "deckName": row["deck_name"],
        "classId": str(row["class_id"]),
        "className": row["class_name"],
    }


def _bookmark(flashcard_id: UUID, created_at: datetime) -> dict[str, Any]:
    return {"flashcardId": str(flashcard_id), "createdAt": iso_timestamp(created_at)}

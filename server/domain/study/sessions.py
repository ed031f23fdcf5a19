"""What a student keeps beside ratings: sessions, counted when they end; bookmarks; progress over all classes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from server.domain.study.activity import lock_activity
from server.domain.writing import Unit, vanished_as_not_found
from server.errors import InvalidInput, NotFound
from server.stores.postgres.database import Database

Position = tuple[datetime | str, UUID | str]
# The position before the first row of a list that runs from new to old.
NEWEST: Position = ("infinity", "ffffffff-ffff-ffff-ffff-ffffffffffff")
# After it comes everything that is later: no id is greater.
LAST_ID = UUID(int=2**128 - 1)


async def start_session(unit: Unit, user_id: UUID, deck_ids: Sequence[UUID]) -> dict[str, Any]:
    """Start a session. Returns its row.

    Raises:
        InvalidInput: a deck does not exist or is not published.
    """
    wanted = list(dict.fromkeys(deck_ids))
    rows = await unit.transaction.fetch_all("find_published_decks", deck_ids=wanted)
    found = {row["id"] for row in rows}
    errors = {
        f"deckIds.{index}": "There is no such published deck."
        for index, deck_id in enumerate(deck_ids)
        if deck_id not in found
    }
    if errors:
        raise InvalidInput(errors=errors)
    with vanished_as_not_found():
        row = await unit.transaction.fetch_one("create_session", user_id=user_id, deck_ids=wanted)
    if row is None:
        raise RuntimeError("create_session gave no row")
    return row


async def end_session(unit: Unit, user_id: UUID, session_id: UUID) -> dict[str, Any]:
    """End a session. Returns its row; ending it again returns the same and counts nothing.

    Raises:
        NotFound: it is unknown, or another user's.
        AccountGone: the user no longer exists.
    """
    transaction = unit.transaction
    await lock_activity(transaction, user_id)  # ratings under way come before, and are counted
    row = await transaction.fetch_one("end_session", session_id=session_id, user_id=user_id)
    if row is not None:
        await transaction.execute("add_study_time", user_id=user_id, duration_seconds=row["duration_seconds"])
    else:
        row = await transaction.fetch_one("get_ended_session", session_id=session_id, user_id=user_id)
    if row is None:
        raise NotFound("There is no such session.")
    return row


async def list_sessions(
    database: Database, user_id: UUID, *, before: Position, page_size: int
) -> list[dict[str, Any]]:
    """Rows of a user's sessions, newest first, after a position."""
    return await database.fetch_all(
        "list_sessions",
        user_id=user_id,
        before_started=before[0],
        before_id=before[1],
        page_size=page_size,
    )


async def list_deck_sessions(
    database: Database, user_id: UUID, deck_id: UUID, *, before: Position, page_size: int
) -> list[dict[str, Any]]:
    """The same, of those that were started for one deck (among others)."""
    return await database.fetch_all(
        "list_deck_sessions",
        user_id=user_id,
        deck_id=deck_id,
        before_started=before[0],
        before_id=before[1],
        page_size=page_size,
    )


async def add_bookmark(unit: Unit, user_id: UUID, flashcard_id: UUID) -> tuple[bool, dict[str, Any]]:
    """Bookmark a card. Returns whether the bookmark is new, and its row.

    Raises:
        NotFound: there is no such published card.
        AccountGone: the user no longer exists.
    """
    transaction = unit.transaction
    if not await transaction.fetch_all("find_rateable_cards", flashcard_ids=[flashcard_id]):
        raise NotFound("There is no such card.")
    await lock_activity(transaction, user_id)  # an addition and a deletion at once come one after the other
    with vanished_as_not_found():
        row = await transaction.fetch_one("add_bookmark", user_id=user_id, flashcard_id=flashcard_id)
    is_new = row is not None
    row = row or await transaction.fetch_one("get_bookmark", user_id=user_id, flashcard_id=flashcard_id)
    if row is None:
        raise RuntimeError("a bookmark neither is nor becomes")
    return is_new, row


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


async def list_due_counts(database: Database, user_id: UUID) -> list[dict[str, Any]]:
    """How many of the cards that a user has rated are due now: a row for each class with any."""
    return await database.fetch_all("list_due_counts", user_id=user_id)


async def list_changes(
    database: Database, user_id: UUID, *, after: Position, page_size: int
) -> list[dict[str, Any]]:
    """Rows of a user's progress as they changed, after the last change that is known: its moment and its card."""
    return await database.fetch_all(
        "list_changed_progress",
        user_id=user_id,
        after_changed=after[0],
        after_id=after[1],
        page_size=page_size,
    )


async def latest_change(database: Database, user_id: UUID) -> datetime | None:
    """When a user's progress last changed; None where there is none."""
    row = await database.fetch_one("get_latest_change", user_id=user_id)
    return None if row is None else row["changed_at"]

"""Cards, as administrators see and change them.

A write takes its locks from the top: the decks that lose or get the card first, then the card, as an import does.
A locked deck does not move to another class: its class's page is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from server.domain.editing.changes import Edited, UnknownDeck
from server.domain.editing.staleness import changed_fields, stale_after_card
from server.domain.values import iso_timestamp
from server.domain.writing import Unit
from server.errors import NotFound
from server.stores.postgres.database import Database, Transaction

_COLUMNS = ("deck_id", "question", "answer", "explanation", "category", "sort_order", "is_published")


async def create_flashcard(unit: Unit, values: Mapping[str, Any]) -> dict[str, Any]:
    """Make a card; values: by column. Returns its row.

    Raises:
        InvalidInput: there is no such deck.
    """
    transaction = unit.transaction
    class_of = await _lock_decks(transaction, flashcard_id=None, deck_id=values["deck_id"])
    if values["deck_id"] not in class_of:
        raise UnknownDeck
    row = _found(await transaction.fetch_one("create_flashcard", **values))
    unit.stale.update(stale_after_card(None, row, class_of))
    return row


async def update_flashcard(unit: Unit, flashcard_id: UUID, changes: Mapping[str, Any]) -> Edited:
    """Change those columns of a card that are given; another deck_id moves it.

    Raises:
        NotFound: it is unknown.
        InvalidInput: there is no such deck.
    """
    transaction = unit.transaction
    before, class_of = await _lock_card(transaction, flashcard_id, changes.get("deck_id"))
    changed = changed_fields(before, changes)
    if not changed:
        return Edited(before, changed)
    values = {column: changes.get(column, before[column]) for column in _COLUMNS}
    if values["deck_id"] not in class_of:
        raise UnknownDeck
    after = _found(await transaction.fetch_one("update_flashcard", flashcard_id=flashcard_id, **values))
    unit.stale.update(stale_after_card(before, after, class_of))
    return Edited(after, changed)


async def delete_flashcard(unit: Unit, flashcard_id: UUID) -> None:
    """Delete a card and all progress on it.

    Raises:
        NotFound: it is unknown.
    """
    transaction = unit.transaction
    before, class_of = await _lock_card(transaction, flashcard_id, None)
    await transaction.execute("delete_flashcard", flashcard_id=flashcard_id)
    unit.stale.update(stale_after_card(before, None, class_of))


class FlashcardEditing:
    """Lists and reads cards; drafts included."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_flashcards(
        self,
        *,
        class_id: UUID | None,
        deck_id: UUID | None,
        published: bool | None,
        text: str | None,
        after: tuple[UUID, int, UUID] | None,
        page_size: int,
    ) -> list[dict[str, Any]]:
        """Rows by deck id, order and id.

        Args:
            class_id: only the cards of this class's decks; an unknown one has none.
            deck_id: only the cards of this deck; an unknown one has none.
            published: only those that are, or only drafts.
            text: only those with this in their question or answer, in capitals or not.
            after: `deck_id`, `sort_order` and `id` of the last row before the page; None for the first one.
            page_size: how many at most.
        """
        after_deck, order, flashcard_id = after or (None, None, None)
        return await self._database.fetch_all(
            "list_flashcards",
            class_id=class_id,
            deck_id=deck_id,
            published=published,
            text=text,
            after_deck=after_deck,
            after_order=order,
            after_id=flashcard_id,
            page_size=page_size,
        )

    async def get_flashcard(self, flashcard_id: UUID) -> dict[str, Any]:
        """A card's row.

        Raises:
            NotFound: it is unknown.
        """
        return _found(await self._database.fetch_one("get_flashcard", flashcard_id=flashcard_id))


async def _lock_decks(
    transaction: Transaction, *, flashcard_id: UUID | None, deck_id: UUID | None
) -> dict[UUID, UUID]:
    """Lock a card's deck and another one, where they are given and exist: their classes by their ids."""
    rows = await transaction.fetch_all("lock_decks_of_card", flashcard_id=flashcard_id, deck_id=deck_id)
    return {row["id"]: row["class_id"] for row in rows}


async def _lock_card(
    transaction: Transaction, flashcard_id: UUID, deck_id: UUID | None
) -> tuple[dict[str, Any], dict[UUID, UUID]]:
    """Lock a card, its deck, and the one it may move to: the card's row, and the decks' classes.

    Raises:
        NotFound: there is no such card.
    """
    class_of = await _lock_decks(transaction, flashcard_id=flashcard_id, deck_id=deck_id)
    row = _found(await transaction.fetch_one("lock_flashcard", flashcard_id=flashcard_id))
    if row["deck_id"] not in class_of:  # moved between the two statements; from now on it stays
        class_of |= await _lock_decks(transaction, flashcard_id=flashcard_id, deck_id=None)
    return row, class_of


def describe_flashcard(row: Mapping[str, Any]) -> dict[str, Any]:
    """A card's row in the form of the API."""
    return {
        "id": str(row["id"]),
        "deckId": str(row["deck_id"]),
        "question": row["question"],
        "answer": row["answer"],
        "explanation": row["explanation"],
        "category": row["category"],
        "order": row["sort_order"],
        "isPublished": row["is_published"],
        "createdAt": iso_timestamp(row["created_at"]),
        "updatedAt": iso_timestamp(row["updated_at"]),
    }


def _found(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise NotFound("There is no such card.")
    return row

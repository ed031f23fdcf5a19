"""Decks, as administrators see and change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from server.domain.editing.changes import Edited, UnknownClass
from server.domain.editing.staleness import changed_fields, stale_after_deck
from server.domain.values import iso_timestamp
from server.domain.writing import Unit
from server.errors import NotFound
from server.stores.postgres.database import Database

_COLUMNS = ("class_id", "name", "description", "sort_order", "is_published")


async def create_deck(unit: Unit, values: Mapping[str, Any]) -> dict[str, Any]:
    """Make a deck; values: by column. Returns its row.

    Raises:
        InvalidInput: there is no such class.
    """
    row = await unit.transaction.fetch_one("create_deck", **values)
    if row is None:
        raise UnknownClass
    unit.stale.update(stale_after_deck(None, row))
    return row


async def update_deck(unit: Unit, deck_id: UUID, changes: Mapping[str, Any]) -> Edited:
    """Change those columns of a deck that are given; another class_id moves it.

    Raises:
        NotFound: it is unknown.
        InvalidInput: there is no such class.
    """
    transaction = unit.transaction
    before = _found(await transaction.fetch_one("lock_deck", deck_id=deck_id))
    changed = changed_fields(before, changes)
    if not changed:
        return Edited(before, changed)
    values = {column: changes.get(column, before[column]) for column in _COLUMNS}
    after = await transaction.fetch_one("update_deck", deck_id=deck_id, **values)
    if after is None:
        raise UnknownClass
    unit.stale.update(stale_after_deck(before, after))
    return Edited(after, changed)


async def delete_deck(unit: Unit, deck_id: UUID) -> None:
    """Delete a deck with its cards and all progress on them.

    Raises:
        NotFound: it is unknown.
    """
    transaction = unit.transaction
    before = _found(await transaction.fetch_one("lock_deck", deck_id=deck_id))
    await transaction.execute("delete_deck", deck_id=deck_id)
    unit.stale.update(stale_after_deck(before, None))


class DeckEditing:
    """Lists and reads decks; drafts included."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_decks(
        self,
        *,
        class_id: UUID | None,
        published: bool | None,
        text: str | None,
        after: tuple[UUID, int, str, UUID] | None,
        page_size: int,
    ) -> list[dict[str, Any]]:
        """Rows by class id, order, name and id.

        Args:
            class_id: only the decks of this class; an unknown one has none.
            published: only those that are, or only drafts.
            text: only those with this in their name, in capitals or not.
            after: `class_id`, `sort_order`, `name` and `id` of the last row before the page; None for the first one.
            page_size: how many at most.
        """
        after_class, order, name, deck_id = after or (None, None, None, None)
        return await self._database.fetch_all(
            "list_decks",
            class_id=class_id,
            published=published,
            text=text,
            after_class=after_class,
            after_order=order,
            after_name=name,
            after_id=deck_id,
            page_size=page_size,
        )

    async def get_deck(self, deck_id: UUID) -> dict[str, Any]:
        """A deck's row.

        Raises:
            NotFound: it is unknown.
        """
        return _found(await self._database.fetch_one("get_deck", deck_id=deck_id))


def describe_deck(row: Mapping[str, Any]) -> dict[str, Any]:
    """A deck's row in the form of the API."""
    return {
        "id": str(row["id"]),
        "classId": str(row["class_id"]),
        "name": row["name"],
        "description": row["description"],
        "order": row["sort_order"],
        "isPublished": row["is_published"],
        "createdAt": iso_timestamp(row["created_at"]),
        "updatedAt": iso_timestamp(row["updated_at"]),
    }


def _found(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise NotFound("There is no such deck.")
    return row

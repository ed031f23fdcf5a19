"""Classes, as administrators see and change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from server.domain.editing.changes import Edited
from server.domain.editing.staleness import changed_fields, stale_after_class
from server.domain.values import iso_timestamp
from server.domain.writing import Unit
from server.errors import NotFound
from server.stores.postgres.database import Database

_COLUMNS = ("name", "description", "icon", "color", "sort_order", "is_published", "scheduler")


async def create_class(unit: Unit, values: Mapping[str, Any]) -> dict[str, Any]:
    """Make a class; values: by column. Returns its row."""
    transaction = unit.transaction
    row = _found(await transaction.fetch_one("create_class", **values))
    unit.stale.update(stale_after_class(None, row, ()))
    return row


async def update_class(unit: Unit, class_id: UUID, changes: Mapping[str, Any]) -> Edited:
    """Change those columns of a class that are given.

    Raises:
        NotFound: it is unknown.
    """
    transaction = unit.transaction
    before = _found(await transaction.fetch_one("lock_class", class_id=class_id))
    changed = changed_fields(before, changes)
    if not changed:
        return Edited(before, changed)
    values = {column: changes.get(column, before[column]) for column in _COLUMNS}
    after = _found(await transaction.fetch_one("update_class", class_id=class_id, **values))
    # The lock keeps decks from coming in until this is committed: none is missing here.
    decks = await transaction.fetch_all("list_deck_ids", class_id=class_id)
    unit.stale.update(stale_after_class(before, after, [deck["id"] for deck in decks]))
    return Edited(after, changed)


async def delete_class(unit: Unit, class_id: UUID) -> None:
    """Delete a class with its decks, their cards, and all progress on them.

    Raises:
        NotFound: it is unknown.
    """
    transaction = unit.transaction
    before = _found(await transaction.fetch_one("lock_class", class_id=class_id))
    decks = await transaction.fetch_all("lock_decks_of_class", class_id=class_id)
    deck_ids = [deck["id"] for deck in decks]
    await transaction.execute("delete_class", class_id=class_id)
    unit.stale.update(stale_after_class(before, None, deck_ids))


class ClassEditing:
    """Lists and reads classes; drafts included."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_classes(
        self, *, published: bool | None, text: str | None, after: tuple[int, str, UUID] | None, page_size: int
    ) -> list[dict[str, Any]]:
        """Rows by order, name and id.

        Args:
            published: only those that are, or only drafts.
            text: only those with this in their name, in capitals or not.
            after: `sort_order`, `name` and `id` of the last row before the page; None for the first one.
            page_size: how many at most.
        """
        order, name, class_id = after or (None, None, None)
        return await self._database.fetch_all(
            "list_classes",
            published=published,
            text=text,
            after_order=order,
            after_name=name,
            after_id=class_id,
            page_size=page_size,
        )

    async def get_class(self, class_id: UUID) -> dict[str, Any]:
        """A class's row.

        Raises:
            NotFound: it is unknown.
        """
        return _found(await self._database.fetch_one("get_class", class_id=class_id))


def describe_class(row: Mapping[str, Any]) -> dict[str, Any]:
    """A class's row in the form of the API."""
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "description": row["description"],
        "icon": row["icon"],
        "color": row["color"],
        "order": row["sort_order"],
        "isPublished": row["is_published"],
        "scheduler": row["scheduler"],
        "createdAt": iso_timestamp(row["created_at"]),
        "updatedAt": iso_timestamp(row["updated_at"]),
    }


def _found(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise NotFound("There is no such class.")
    return row

"""A student's progress over all classes: what is due, and what has changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from server.domain.study.sessions import Position
from server.stores.postgres.database import Database

# After it comes everything that is later: no id is greater.
LAST_ID = UUID(int=2**128 - 1)


async def count_due_cards_by_class(database: Database, user_id: UUID) -> dict[str, Any]:
    """How many of the cards that a user has rated are due now, in all and by class, in the form of the API."""
    rows = await database.fetch_all("list_due_counts", user_id=user_id)
    return {
        "dueCards": sum(row["due_cards"] for row in rows),
        "classes": [
            {
                "classId": str(row["class_id"]),
                "className": row["class_name"],
                "dueCards": row["due_cards"],
            }
            for row in rows
        ],
    }


async def list_changes(
    database: Database, user_id: UUID, *, after: Position, page_size: int
) -> list[dict[str, Any]]:
    """Rows of a user's progress in the order in which they changed.

    Args:
        database: where they are.
        user_id: whose.
        after: the moment and the card of the last change that is known.
        page_size: at most so many.
    """
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

"""/api/admin/flashcards: the cards of the course, drafts included."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web

from server.api.admin.schemas import FlashcardSchema, FlashcardsQuerySchema
from server.api.listing import read_listing
from server.api.requests import path_id, read_json
from server.api.responses import tagged_response
from server.api.services import caller_of, services_of
from server.api.writes import answer, no_content, write
from server.domain.editing import flashcards
from server.domain.editing.flashcards import describe_flashcard
from server.domain.writing import Answer, Unit

log = structlog.get_logger(__name__)

_QUERY = FlashcardsQuerySchema()
_NEW = FlashcardSchema()
_CHANGES = FlashcardSchema(partial=True)


async def list_flashcards(request: web.Request) -> web.Response:
    """A page of cards; those of a deck by order."""
    listing = read_listing(request, "admin-flashcards", _QUERY)
    after = listing.position
    rows = await services_of(request).editing.flashcards.list_flashcards(
        **listing.filters,
        after=None if after is None else (UUID(after[0]), after[1], UUID(after[2])),
        page_size=listing.limit + 1,
    )
    page, next_cursor = listing.page(rows, _position)
    return tagged_response(
        request, {"flashcards": [describe_flashcard(row) for row in page], "nextCursor": next_cursor}
    )


async def create_flashcard(request: web.Request) -> web.Response:
    """Make a card."""
    values = await read_json(request, _NEW)

    async def work(unit: Unit) -> Answer:
        row = await flashcards.create_flashcard(unit, values)
        _audit(unit, request, "audit.flashcard_created", row["id"])
        return answer(describe_flashcard(row), status=201, location=f"/api/admin/flashcards/{row['id']}")

    return await write(request, work)


async def get_flashcard(request: web.Request) -> web.Response:
    """A card."""
    row = await services_of(request).editing.flashcards.get_flashcard(path_id(request, "flashcardId"))
    return tagged_response(request, describe_flashcard(row))


async def update_flashcard(request: web.Request) -> web.Response:
    """Change some fields of a card."""
    flashcard_id = path_id(request, "flashcardId")
    changes = await read_json(request, _CHANGES)

    async def work(unit: Unit) -> Answer:
        edited = await flashcards.update_flashcard(unit, flashcard_id, changes)
        _audit(unit, request, "audit.flashcard_updated", flashcard_id, changed=sorted(edited.changed))
        return answer(describe_flashcard(edited.row))

    return await write(request, work)


async def delete_flashcard(request: web.Request) -> web.Response:
    """Delete a card."""
    flashcard_id = path_id(request, "flashcardId")

    async def work(unit: Unit) -> Answer:
        await flashcards.delete_flashcard(unit, flashcard_id)
        _audit(unit, request, "audit.flashcard_deleted", flashcard_id)
        return no_content()

    return await write(request, work)


def _position(row: dict[str, Any]) -> tuple[str, int, str]:
    return str(row["deck_id"]), row["sort_order"], str(row["id"])


def _audit(unit: Unit, request: web.Request, event: str, flashcard_id: UUID, **more: Any) -> None:
    subject = {"admin_id": str(caller_of(request).user_id), "flashcard_id": str(flashcard_id)}
    unit.afterwards.append(partial(log.info, event, **subject, **more))

"""/api/admin/flashcards: the cards of the course, drafts included."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from aiohttp import web

from server.api.catalog_schemas import FlashcardSchema, FlashcardsQuerySchema
from server.api.listing import read_listing
from server.api.requests import path_id, read_json
from server.api.responses import created_response, json_response, no_content, tagged_response
from server.api.services import caller_of, services_of
from server.domain.editing.flashcards import describe_flashcard

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
    row = await services_of(request).editing.flashcards.create_flashcard(await read_json(request, _NEW))
    log.info("audit.flashcard_created", **_subject(request, row["id"]))
    return created_response(f"/api/admin/flashcards/{row['id']}", describe_flashcard(row))


async def get_flashcard(request: web.Request) -> web.Response:
    """A card."""
    row = await services_of(request).editing.flashcards.get_flashcard(path_id(request, "flashcardId"))
    return tagged_response(request, describe_flashcard(row))


async def update_flashcard(request: web.Request) -> web.Response:
    """Change some fields of a card."""
    flashcard_id = path_id(request, "flashcardId")
    changes = await read_json(request, _CHANGES)
    edited = await services_of(request).editing.flashcards.update_flashcard(flashcard_id, changes)
    log.info("audit.flashcard_updated", **_subject(request, flashcard_id), changed=sorted(edited.changed))
    return json_response(describe_flashcard(edited.row))


async def delete_flashcard(request: web.Request) -> web.Response:
    """Delete a card."""
    flashcard_id = path_id(request, "flashcardId")
    await services_of(request).editing.flashcards.delete_flashcard(flashcard_id)
    log.info("audit.flashcard_deleted", **_subject(request, flashcard_id))
    return no_content()


def _position(row: dict[str, Any]) -> tuple[str, int, str]:
    return str(row["deck_id"]), row["sort_order"], str(row["id"])


def _subject(request: web.Request, flashcard_id: UUID) -> dict[str, Any]:
    return {"admin_id": str(caller_of(request).user_id), "flashcard_id": str(flashcard_id)}

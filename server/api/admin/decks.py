"""/api/admin/decks: the decks of the course, drafts included."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web

from server.api.admin.schemas import DeckSchema, DecksQuerySchema
from server.api.listing import read_listing
from server.api.requests import path_id, read_json
from server.api.responses import tagged_response
from server.api.services import caller_of, services_of
from server.api.writes import answer, no_content, write
from server.domain.editing import decks
from server.domain.editing.decks import describe_deck
from server.domain.writing import Answer, Unit

log = structlog.get_logger(__name__)

_QUERY = DecksQuerySchema()
_NEW = DeckSchema()
_CHANGES = DeckSchema(partial=True)


async def list_decks(request: web.Request) -> web.Response:
    """A page of decks; those of a class by order, then name."""
    listing = read_listing(request, "admin-decks", _QUERY)
    after = listing.position
    rows = await services_of(request).editing.decks.list_decks(
        **listing.filters,
        after=None if after is None else (UUID(after[0]), after[1], after[2], UUID(after[3])),
        page_size=listing.limit + 1,
    )
    page, next_cursor = listing.page(rows, _position)
    return tagged_response(
        request, {"decks": [describe_deck(row) for row in page], "nextCursor": next_cursor}
    )


async def create_deck(request: web.Request) -> web.Response:
    """Make a deck."""
    values = await read_json(request, _NEW)

    async def work(unit: Unit) -> Answer:
        row = await decks.create_deck(unit, values)
        _audit(unit, request, "audit.deck_created", row["id"])
        return answer(describe_deck(row), status=201, location=f"/api/admin/decks/{row['id']}")

    return await write(request, work)


async def get_deck(request: web.Request) -> web.Response:
    """A deck."""
    row = await services_of(request).editing.decks.get_deck(path_id(request, "deckId"))
    return tagged_response(request, describe_deck(row))


async def update_deck(request: web.Request) -> web.Response:
    """Change some fields of a deck."""
    deck_id = path_id(request, "deckId")
    changes = await read_json(request, _CHANGES)

    async def work(unit: Unit) -> Answer:
        edited = await decks.update_deck(unit, deck_id, changes)
        _audit(unit, request, "audit.deck_updated", deck_id, changed=sorted(edited.changed))
        return answer(describe_deck(edited.row))

    return await write(request, work)


async def delete_deck(request: web.Request) -> web.Response:
    """Delete a deck with its cards."""
    deck_id = path_id(request, "deckId")

    async def work(unit: Unit) -> Answer:
        await decks.delete_deck(unit, deck_id)
        _audit(unit, request, "audit.deck_deleted", deck_id)
        return no_content()

    return await write(request, work)


def _position(row: dict[str, Any]) -> tuple[str, int, str, str]:
    return str(row["class_id"]), row["sort_order"], row["name"], str(row["id"])


def _audit(unit: Unit, request: web.Request, event: str, deck_id: UUID, **more: Any) -> None:
    subject = {"admin_id": str(caller_of(request).user_id), "deck_id": str(deck_id)}
    unit.afterwards.append(partial(log.info, event, **subject, **more))

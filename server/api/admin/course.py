"""/api/admin/classes, …/decks and …/flashcards: the course as administrators edit it, drafts included."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web
from marshmallow import Schema

from server.api.admin.schemas import (
    ClassesQuerySchema,
    ClassSchema,
    DeckSchema,
    DecksQuerySchema,
    FlashcardSchema,
    FlashcardsQuerySchema,
)
from server.api.answers.kinds import Answer as Form
from server.api.answers.operations import EditableClass, EditableDeck, EditableFlashcard
from server.api.pagination import read_listing
from server.api.requests import path_id, read_json
from server.api.responses import tagged_response
from server.api.services import caller_of, services_of
from server.api.writes import answer, no_content, write
from server.domain.editing.resources import CLASSES, DECKS, FLASHCARDS, Resource
from server.domain.writing import Answer, Unit

log = structlog.get_logger(__name__)


class Routes:
    """The routes of one kind of thing.

    Each write leaves an audit event in the log once it is committed: `audit.deck_created`, `audit.deck_updated` with
    the columns that changed, `audit.deck_deleted`.

    Args:
        resource: what administrators do to these things.
        form: of one of them in an answer.
        query: the parameters of the list.
        body: what makes one; a part of it changes one.
    """

    def __init__(
        self, resource: Resource, form: type[Form], *, query: ClassesQuerySchema, body: type[Schema]
    ) -> None:
        self._resource = resource
        self._form = form
        self._query = query
        self._new = body()
        self._changes = body(partial=True)

    async def list(self, request: web.Request) -> web.Response:
        """A page of them, in the order of the resource."""
        resource = self._resource
        listing = read_listing(request, f"admin-{resource.plural}", self._query)
        rows = await resource.page(
            services_of(request).database,
            listing.filters,
            after=listing.position,
            page_size=listing.limit + 1,
        )
        page, next_cursor = listing.page(rows, resource.position_of)
        return tagged_response(
            request, {resource.plural: [self._form.of(row) for row in page], "nextCursor": next_cursor}
        )

    async def create(self, request: web.Request) -> web.Response:
        """Make one: 201 and where it is."""
        resource = self._resource
        values = await read_json(request, self._new)

        async def work(unit: Unit) -> Answer:
            row = await resource.create(unit, values)
            self._audit(unit, request, "created", row["id"])
            location = f"/api/admin/{resource.plural}/{row['id']}"
            return answer(self._form.of(row), status=201, location=location)

        return await write(request, work)

    async def get(self, request: web.Request) -> web.Response:
        """One of them."""
        row = await self._resource.get(services_of(request).database, self._id(request))
        return tagged_response(request, self._form.of(row))

    async def update(self, request: web.Request) -> web.Response:
        """Change some fields of one."""
        row_id = self._id(request)
        changes = await read_json(request, self._changes)

        async def work(unit: Unit) -> Answer:
            edited = await self._resource.update(unit, row_id, changes)
            self._audit(unit, request, "updated", row_id, changed=sorted(edited.changed))
            return answer(self._form.of(edited.row))

        return await write(request, work)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete one."""
        row_id = self._id(request)

        async def work(unit: Unit) -> Answer:
            await self._resource.delete(unit, row_id)
            self._audit(unit, request, "deleted", row_id)
            return no_content()

        return await write(request, work)

    def _id(self, request: web.Request) -> UUID:
        return path_id(request, f"{self._resource.name}Id")

    def _audit(self, unit: Unit, request: web.Request, what: str, row_id: UUID, **more: Any) -> None:
        name = self._resource.name
        subject = {"admin_id": str(caller_of(request).user_id), f"{name}_id": str(row_id)}
        unit.afterwards.append(partial(log.info, f"audit.{name}_{what}", **subject, **more))


_CLASSES = Routes(CLASSES, EditableClass, query=ClassesQuerySchema(), body=ClassSchema)


async def list_classes(request: web.Request) -> web.Response:
    """A page of classes, by order, then name."""
    return await _CLASSES.list(request)


async def create_class(request: web.Request) -> web.Response:
    """Make a class."""
    return await _CLASSES.create(request)


async def get_class(request: web.Request) -> web.Response:
    """A class."""
    return await _CLASSES.get(request)


async def update_class(request: web.Request) -> web.Response:
    """Change some fields of a class."""
    return await _CLASSES.update(request)


async def delete_class(request: web.Request) -> web.Response:
    """Delete a class with everything in it."""
    return await _CLASSES.delete(request)


_DECKS = Routes(DECKS, EditableDeck, query=DecksQuerySchema(), body=DeckSchema)


async def list_decks(request: web.Request) -> web.Response:
    """A page of decks; those of a class by order, then name."""
    return await _DECKS.list(request)


async def create_deck(request: web.Request) -> web.Response:
    """Make a deck."""
    return await _DECKS.create(request)


async def get_deck(request: web.Request) -> web.Response:
    """A deck."""
    return await _DECKS.get(request)


async def update_deck(request: web.Request) -> web.Response:
    """Change some fields of a deck."""
    return await _DECKS.update(request)


async def delete_deck(request: web.Request) -> web.Response:
    """Delete a deck with its cards."""
    return await _DECKS.delete(request)


_FLASHCARDS = Routes(FLASHCARDS, EditableFlashcard, query=FlashcardsQuerySchema(), body=FlashcardSchema)


async def list_flashcards(request: web.Request) -> web.Response:
    """A page of cards; those of a deck by order."""
    return await _FLASHCARDS.list(request)


async def create_flashcard(request: web.Request) -> web.Response:
    """Make a card."""
    return await _FLASHCARDS.create(request)


async def get_flashcard(request: web.Request) -> web.Response:
    """A card."""
    return await _FLASHCARDS.get(request)


async def update_flashcard(request: web.Request) -> web.Response:
    """Change some fields of a card."""
    return await _FLASHCARDS.update(request)


async def delete_flashcard(request: web.Request) -> web.Response:
    """Delete a card."""
    return await _FLASHCARDS.delete(request)

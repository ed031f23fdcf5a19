"""/api/admin/classes, …/decks and …/flashcards: the course as administrators edit it, drafts included.

A file's cards go into a deck by …/decks/{deckId}/import, and a deck's cards come as a file by …/export.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from aiohttp import hdrs, web
from marshmallow import Schema

from server.api.admin.schemas import (
    ClassesQuerySchema,
    ClassSchema,
    DeckSchema,
    DecksQuerySchema,
    FlashcardSchema,
    FlashcardsQuerySchema,
    ImportQuerySchema,
)
from server.api.answers.kinds import Answer as Form
from server.api.answers.operations import EditableClass, EditableDeck, EditableFlashcard
from server.api.pagination import read_listing
from server.api.requests import path_id, read_content, read_json, read_query, refuse_query
from server.api.responses import JSON, LARGE_BYTES, refuse_without_room, tagged_response
from server.api.services import caller_of, services_of, settle_cost
from server.api.writes import answer, no_content, respond, write
from server.domain.catalog.deck_files import ENCODINGS_ACCEPTED, FORMAT_BY_MEDIA_TYPE, Reading, find_encoding
from server.domain.catalog.deck_rows import Seen
from server.domain.editing.imports import EXPORT_FORMATS, import_cards, read_deck_file, write_cards
from server.domain.editing.resources import CLASSES, DECKS, FLASHCARDS, Resource
from server.domain.writing import Answer, Unit
from server.errors import UnsupportedMediaType

log = structlog.get_logger(__name__)

MAX_FILE_BYTES = 10 << 20
COST_UNIT_BYTES = 1 << 20  # an import costs the rate limits a unit for each that it has begun
_QUERY = ImportQuerySchema()


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


async def import_deck(request: web.Request) -> web.Response:
    """Merge the cards of a file into a deck: TSV, CSV, Anki's text export or JSON; the Content-Type says which it is.

    All or nothing: at most 10 MiB and 100,000 rows (413, `too_many_rows`), within a deadline of its own (503,
    `import_timed_out`). What is wrong is reported by its row, 20 of them at most. The answer says how the file was
    read: what divides the columns, which row is the header, and which is the first card. With `dryRun` nothing is
    stored. The rate limits are charged a unit for each MiB begun.
    """
    deck_id = path_id(request, "deckId")
    query = read_query(request, _QUERY)
    deck_format = FORMAT_BY_MEDIA_TYPE.get(request.content_type)
    if deck_format is None:
        raise UnsupportedMediaType(f"The Content-Type must be one of {', '.join(FORMAT_BY_MEDIA_TYPE)}.")
    reading = Reading(
        _encoding(request.charset),
        query["dialect"],
        escapes=query["escapes"] is None,
        header=query["header"],
    )
    # An unknown deck is refused before megabytes are read.
    await DECKS.get(services_of(request).database, deck_id)
    body = await read_content(request, MAX_FILE_BYTES)
    settle_cost(request, max(1, -(-len(body) // COST_UNIT_BYTES)))
    deck = await read_deck_file(body, deck_format, reading)
    timeout_ms = services_of(request).settings.import_timeout_ms

    async def work(unit: Unit) -> Answer:
        counts = asdict(await import_cards(unit, deck_id, deck, timeout_ms=timeout_ms))
        given = answer({**counts, **_describe_seen(deck.seen)})
        if query["dry_run"]:
            unit.stale.clear()
            raise _TriedOut(given)
        subject = {"admin_id": str(caller_of(request).user_id), "deck_id": str(deck_id)}
        unit.afterwards.append(partial(log.info, "audit.deck_imported", **subject, **counts))
        return given

    try:
        return await write(request, work, body=body)
    except _TriedOut as tried:
        return respond(tried.answer)


async def export_deck(request: web.Request) -> web.Response:
    """The cards of a deck as a file: TSV, CSV or JSON, whichever `Accept` names first; TSV where it names none.

    What is exported is imported as unchanged. Drafts are among the cards.
    """
    deck_id = path_id(request, "deckId")
    refuse_query(request)
    accepted = (part.partition(";")[0].strip() for part in request.headers.get(hdrs.ACCEPT, "").split(","))
    media_type = next((one for one in accepted if one in EXPORT_FORMATS), "text/tab-separated-values")
    database = services_of(request).database
    await DECKS.get(database, deck_id)
    cards = await database.fetch_all("list_cards_of_deck", deck_id=deck_id)
    body = await asyncio.to_thread(write_cards, cards, EXPORT_FORMATS[media_type])
    if len(body) > LARGE_BYTES:
        refuse_without_room(request, len(body))
    headers = {hdrs.CACHE_CONTROL: "no-store", hdrs.VARY: f"{hdrs.ACCEPT}, {hdrs.AUTHORIZATION}"}
    charset = None if media_type == JSON else "utf-8"
    return web.Response(body=body, content_type=media_type, charset=charset, headers=headers)


def _describe_seen(seen: Seen) -> dict[str, Any]:
    row, question, text = seen.first_card or (0, "", "")
    first = {"row": row, "question": question, "answer": text}
    return {"dialect": seen.dialect, "header": seen.header, "firstCard": first, "warnings": seen.warnings}


class _TriedOut(Exception):
    """What the import would have answered."""

    def __init__(self, given: Answer) -> None:
        super().__init__()
        self.answer = given


def _encoding(charset: str | None) -> str:
    """The encoding that the Content-Type names; UTF-8 if it names none.

    Raises:
        UnsupportedMediaType: it is not one that we read.
    """
    encoding = find_encoding(charset or "utf-8")
    if encoding is None:
        raise UnsupportedMediaType(f"The charset must be {ENCODINGS_ACCEPTED}.")
    return encoding

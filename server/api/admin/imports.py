"""/api/admin/decks/{deckId}/import and …/export: a file's cards into a deck, and a deck's cards as a file."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog
from aiohttp import hdrs, web

from server.api.admin.schemas import ImportQuerySchema
from server.api.requests import path_id, read_content, read_query, refuse_query
from server.api.responses import JSON, LARGE_BYTES, refuse_without_room
from server.api.services import caller_of, services_of, settle_cost
from server.api.writes import answer, respond, write
from server.domain.catalog.deck_export import EXPORT_FORMATS, write_cards
from server.domain.catalog.deck_files import (
    ENCODINGS_ACCEPTED,
    FORMAT_BY_MEDIA_TYPE,
    Reading,
    find_encoding,
)
from server.domain.catalog.deck_rows import Seen
from server.domain.editing.imports import import_cards, read_deck_file
from server.domain.editing.resources import DECKS
from server.domain.writing import Answer, Unit
from server.errors import UnsupportedMediaType

log = structlog.get_logger(__name__)

MAX_FILE_BYTES = 10 << 20
COST_UNIT_BYTES = 1 << 20  # an import costs the rate limits a unit for each that it has begun
_QUERY = ImportQuerySchema()


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

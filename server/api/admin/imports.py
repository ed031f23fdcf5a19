"""POST /api/admin/decks/{deckId}/import: a file's cards into a deck."""

from __future__ import annotations

import codecs
from dataclasses import asdict
from functools import partial

import structlog
from aiohttp import web

from server.api.bodies import read_content
from server.api.requests import path_id
from server.api.services import caller_of, services_of
from server.api.writes import answer, write
from server.domain.catalog.deck_files import FORMAT_BY_MEDIA_TYPE
from server.domain.editing.imports import import_cards, read_deck_file
from server.domain.editing.resources import DECKS
from server.domain.writing import Answer, Unit
from server.errors import UnsupportedMediaType

log = structlog.get_logger(__name__)

MAX_FILE_BYTES = 10 << 20
# By the names that Python knows them under. Others are rare in files, or are no encodings of text at all.
_ENCODINGS = frozenset(
    {"utf-8", "ascii", "utf-16", "utf-16-le", "utf-16-be", "iso8859-1", "iso8859-15", "cp1252"}
)


async def import_deck(request: web.Request) -> web.Response:
    """Merge the cards of a TSV, CSV or JSON file into a deck; the Content-Type says which it is.

    All or nothing: at most 10 MiB and 100,000 rows (413, `too_many_rows`), within a deadline of its own (503,
    `import_timed_out`). What is wrong is reported by its row, 20 of them at most.
    """
    deck_id = path_id(request, "deckId")
    deck_format = FORMAT_BY_MEDIA_TYPE.get(request.content_type)
    if deck_format is None:
        raise UnsupportedMediaType(f"The Content-Type must be one of {', '.join(FORMAT_BY_MEDIA_TYPE)}.")
    encoding = _encoding(request.charset)
    # An unknown deck is refused before megabytes are read.
    await DECKS.get(services_of(request).database, deck_id)
    body = await read_content(request, MAX_FILE_BYTES)
    cards = await read_deck_file(body, deck_format, encoding=encoding)
    timeout_ms = services_of(request).settings.import_timeout_ms

    async def work(unit: Unit) -> Answer:
        counts = asdict(await import_cards(unit, deck_id, cards, timeout_ms=timeout_ms))
        subject = {"admin_id": str(caller_of(request).user_id), "deck_id": str(deck_id)}
        unit.afterwards.append(partial(log.info, "audit.deck_imported", **subject, **counts))
        return answer(counts)

    return await write(request, work, body=body)


def _encoding(charset: str | None) -> str:
    """The encoding that the Content-Type names; UTF-8 if it names none.

    Raises:
        UnsupportedMediaType: it is not one that we read.
    """
    try:
        encoding = codecs.lookup(charset or "utf-8").name
    except (LookupError, ValueError):
        encoding = ""
    if encoding not in _ENCODINGS:
        raise UnsupportedMediaType(
            "The charset must be utf-8, utf-16, iso-8859-1, iso-8859-15 or windows-1252."
        )
    return encoding

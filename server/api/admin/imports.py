"""/api/admin/decks/{deckId}/import and …/export: a file's cards into a deck, and a deck's cards as a file."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog
from aiohttp import content_disposition_filename, hdrs, parse_content_disposition, web
from aiohttp.helpers import parse_mimetype

from server.api.admin.schemas import ImportQuerySchema
from server.api.requests import path_id, read_content, read_query, refuse_query
from server.api.responses import LARGE_BYTES, refuse_without_room
from server.api.services import caller_of, services_of, settle_cost
from server.api.writes import answer, respond, write
from server.domain.catalog.deck_files import (
    ENCODINGS_ACCEPTED,
    FORMAT_BY_MEDIA_TYPE,
    Reading,
    find_encoding,
)
from server.domain.catalog.deck_rows import Seen
from server.domain.editing.imports import EXPORT_FORMATS, import_cards, read_deck_file, write_cards
from server.domain.editing.resources import DECKS
from server.domain.writing import Answer, Unit
from server.errors import InvalidInput, UnsupportedMediaType

log = structlog.get_logger(__name__)

MAX_FILE_BYTES = 10 << 20
COST_UNIT_BYTES = 1 << 20  # an import costs the rate limits a unit for each that it has begun
FORM = "multipart/form-data"
_QUERY = ImportQuerySchema()


async def import_deck(request: web.Request) -> web.Response:
    """Merge the cards of a file into a deck: TSV, CSV, Anki's text export, JSON or a workbook (.xlsx).

    The Content-Type says which it is. Workbooks need the extra `xlsx` (415 without it).

    All or nothing: at most 10 MiB and 100,000 rows (413, `too_many_rows`), within a deadline of its own (503,
    `import_timed_out`). What is wrong is reported by its row, 20 of them at most. The answer says how the file was
    read: what divides the columns, which row is the header, and which is the first card. With `dryRun` nothing is
    stored. The rate limits are charged a unit for each MiB begun.
    """
    return await _import(request, is_form=False)


async def upload_deck(request: web.Request) -> web.Response:
    """The same for a form, as browsers, curl and generated clients upload files: the file is its field `file`.

    The end of its name says what it is (.csv, .tsv, .txt, .json, .xlsx), or else its type.
    """
    return await _import(request, is_form=True)


async def _import(request: web.Request, *, is_form: bool) -> web.Response:
    deck_id = path_id(request, "deckId")
    query = read_query(request, _QUERY)
    media_type, charset = request.content_type, request.charset
    if not is_form:
        _check_type(media_type, charset)
    elif media_type != FORM:
        raise UnsupportedMediaType(f"The Content-Type must be {FORM}.")
    # An unknown deck is refused before megabytes are read.
    await DECKS.get(services_of(request).database, deck_id)
    sent = body = await read_content(request, MAX_FILE_BYTES)
    settle_cost(request, max(1, -(-len(body) // COST_UNIT_BYTES)))
    if is_form:
        media_type, charset, body = _file_of_form(request.headers[hdrs.CONTENT_TYPE], body)
        # A repeated form has another boundary.
        sent = media_type.encode() + b"\0" + body
    reading = Reading(
        _check_type(media_type, charset),
        query["dialect"],
        escapes=query["escapes"] is None,
        header=query["header"],
    )
    deck = await read_deck_file(body, FORMAT_BY_MEDIA_TYPE[media_type], reading)
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
        return await write(request, work, body=sent)
    except _TriedOut as tried:
        return respond(tried.answer)


async def export_deck(request: web.Request) -> web.Response:
    """The cards of a deck as a file: TSV, CSV, JSON or a workbook, whichever `Accept` names first; else TSV.

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
    charset = "utf-8" if media_type.startswith("text/") else None
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


def _check_type(media_type: str, charset: str | None) -> str:
    """The encoding of a file; UTF-8 if its type names none.

    Raises:
        UnsupportedMediaType: the type or the charset is none that we read.
    """
    if media_type not in FORMAT_BY_MEDIA_TYPE:
        raise UnsupportedMediaType(
            f"The Content-Type must be one of {', '.join(FORMAT_BY_MEDIA_TYPE)}. A form goes to …/import/form."
        )
    encoding = find_encoding(charset or "utf-8")
    if encoding is None:
        raise UnsupportedMediaType(f"The charset must be {ENCODINGS_ACCEPTED}.")
    return encoding


def _file_of_form(content_type: str, body: bytes) -> tuple[str, str | None, bytes]:
    """The media type, the charset and the content of the field `file` of a form. Other fields are passed over.

    Raises:
        InvalidInput: the form has no such field, or two of them, or is none.
        UnsupportedMediaType: neither the field's type nor the end of its name says what the file is.
    """
    boundary = parse_mimetype(content_type).parameters.get("boundary", "")
    files = []
    # The first piece stands before the form, the last one behind it.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1] if boundary else ():
        head, _, content = part.partition(b"\r\n\r\n")
        lines = (line.partition(":") for line in head.decode(errors="replace").split("\r\n"))
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        _, parameters = parse_content_disposition(headers.get("content-disposition"))
        if parameters.get("name") == "file":
            files.append(
                (headers.get("content-type", ""), content_disposition_filename(parameters) or "", content)
            )
    if len(files) != 1:
        raise InvalidInput(errors={"file": f"Must be one file in the form; there are {len(files)}."})
    ((sent_type, name, content),) = files
    kind = parse_mimetype(sent_type)
    named = f"{kind.type}/{kind.subtype}"
    ending = name.rpartition(".")[2].lower()
    # Browsers name a type of their own for what they do not know, and text/plain or Excel's for CSV.
    media_type = next((one for one, format_ in FORMAT_BY_MEDIA_TYPE.items() if format_ == ending), named)
    if media_type not in FORMAT_BY_MEDIA_TYPE:
        endings = ", ".join(f".{format_}" for format_ in FORMAT_BY_MEDIA_TYPE.values())
        raise UnsupportedMediaType(
            f"The file's name must end in {endings}; or it needs a Content-Type of its own."
        )
    return media_type, kind.parameters.get("charset"), content

"""Cards of a file into a deck, all or nothing and as often as one likes; and cards as a file that is read back."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from server.domain.catalog.deck_files import FORMAT_BY_MEDIA_TYPE, DeckFormat, PackedDeck, Reading, pack_deck
from server.domain.catalog.deck_headers import COLUMNS
from server.domain.catalog.deck_workbooks import has_workbooks, write_workbook
from server.domain.editing.resources import stale_after_import
from server.domain.writing import Unit
from server.errors import NotFound, ServiceUnavailable
from server.stores.postgres.database import DatabaseUnavailable

EXPORT_FORMATS: dict[str, DeckFormat] = {
    media_type: format_
    for media_type, format_ in FORMAT_BY_MEDIA_TYPE.items()
    if format_ != "txt" and (format_ != "xlsx" or has_workbooks())
}


@dataclass(frozen=True, slots=True)
class Imported:
    """How many cards of the file are new, were changed, and were there already."""

    created: int
    updated: int
    unchanged: int


# A query and its parameters; its row, if it has one; at the end, what was imported and the cache keys that are stale.
Merge = Generator[tuple[str, dict[str, Any]], Mapping[str, Any] | None, tuple[Imported, set[str]]]


class ImportTimedOut(ServiceUnavailable):
    """The import took too long and was undone; try again later, or send the file in parts."""

    code = "import_timed_out"


async def read_deck_file(content: bytes, format_: DeckFormat, reading: Reading) -> PackedDeck:
    """The cards of a file, as `import_cards` takes them. Arguments and errors as of `pack_deck`."""
    # It takes seconds for the largest files: not in the event loop's thread.
    return await asyncio.to_thread(pack_deck, content, format_, reading)


async def import_cards(unit: Unit, deck_id: UUID, deck: PackedDeck, *, timeout_ms: float) -> Imported:
    """Merge cards into a deck, published or not; cards that it has beyond them stay.

    Cards get the file's order, unless the file has all of the deck's cards as they are ordered already.

    Args:
        unit: the unit of work.
        deck_id: the deck.
        deck: the cards.
        timeout_ms: how long it may take in all, waiting for another import into the deck included.

    Raises:
        NotFound: there is no such deck.
        ImportTimedOut: nothing was imported.
    """
    try:
        await unit.transaction.extend_deadline(timeout_ms)
        return await _import_cards(unit, deck_id, deck)
    except DatabaseUnavailable as error:
        if error.reason == "timeout":
            raise ImportTimedOut from error
        raise


async def _import_cards(unit: Unit, deck_id: UUID, packed: PackedDeck) -> Imported:
    merge, row = merge_cards(deck_id, packed), None
    while True:
        try:
            query, parameters = merge.send(row)
        except StopIteration as done:
            result: tuple[Imported, set[str]] = done.value
            unit.stale.update(result[1])
            return result[0]
        row = await unit.transaction.fetch_one(query, **parameters)


def merge_cards(
    deck_id: UUID, packed: PackedDeck, *, is_published: bool = True, is_frame_changed: bool = False
) -> Merge:
    """What an import asks the database, query after query, each of which is sent its row: whatever the driver.

    Args:
        deck_id: the deck.
        packed: its cards in the file.
        is_published: whether new cards are.
        is_frame_changed: whether the class or the deck itself is new or changed.

    Raises:
        NotFound: there is no such deck.
    """
    # Two imports into one deck, one after the other: the second one knows the cards of the first.
    deck = yield "lock_deck", {"deck_id": deck_id}
    if deck is None:
        raise NotFound("There is no such deck.")
    yield "expect_many_cards", {}
    created = updated = unchanged = 0
    known = yield "hash_deck_questions", {"deck_id": deck_id}
    keeps_order = known is not None and bytes(known["questions"]) == packed.questions
    for batch in packed.batches:
        counts = yield (
            "import_cards",
            {
                "deck_id": deck_id,
                "first": batch.first,
                "cards": batch.cards.decode(),
                "keeps_order": keeps_order,
                "is_published": is_published,
            },
        )
        if counts is not None:
            created += counts["created"]
            updated += counts["updated"]
            unchanged += counts["unchanged"]
    stale = stale_after_import(
        deck["class_id"], deck_id, created=created, updated=updated, is_frame_changed=is_frame_changed
    )
    return Imported(created, updated, unchanged), stale


def write_cards(cards: Iterable[Mapping[str, Any]], format_: DeckFormat) -> bytes:
    """A file of cards; text is in UTF-8.

    Args:
        cards: with a text or None for each of COLUMNS.
        format_: tsv, csv, json or xlsx. In tables every cell is in quotes, so that nothing in it means anything else.
    """
    if format_ == "json":
        rows = [{name: card[name] for name in COLUMNS if card[name] is not None} for card in cards]
        return orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n"
    if format_ == "xlsx":
        return write_workbook(cards)
    output = io.StringIO(newline="")
    writer = csv.writer(
        output, delimiter="," if format_ == "csv" else "\t", quoting=csv.QUOTE_ALL, lineterminator="\n"
    )
    writer.writerow(COLUMNS)
    writer.writerows([card[name] or "" for name in COLUMNS] for card in cards)
    return output.getvalue().encode()

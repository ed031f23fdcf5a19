"""Cards of a file into a deck: all or nothing, and as often as one likes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from server.domain.deck_files import DeckFormat, as_json, parse_deck
from server.domain.editing.staleness import stale_after_import
from server.domain.writing import Unit
from server.errors import NotFound


@dataclass(frozen=True, slots=True)
class Imported:
    """How many cards of the file are new, were changed, and were there already."""

    created: int
    updated: int
    unchanged: int


async def read_deck_file(content: bytes, deck_format: DeckFormat) -> str:
    """The cards of a file, as `import_cards` takes them.

    Args:
        content: the file, in UTF-8.
        deck_format: how it is written.

    Raises:
        DeckFileError: a row can't be imported.
    """
    # Some hundred milliseconds for the largest files: not in the thread that answers everybody else.
    return await asyncio.to_thread(lambda: as_json(parse_deck(content, deck_format)))


async def import_cards(unit: Unit, deck_id: UUID, cards: str) -> Imported:
    """Merge cards into a deck, published or not; cards that it has beyond them stay.

    Raises:
        NotFound: there is no such deck.
    """
    # Two imports into one deck, one after the other: the second one knows the cards of the first.
    deck = await unit.transaction.fetch_one("lock_deck", deck_id=deck_id)
    if deck is None:
        raise NotFound("There is no such deck.")
    await unit.transaction.execute("expect_many_cards")
    counts = await unit.transaction.fetch_one("import_cards", deck_id=deck_id, cards=cards)
    imported = Imported(**(counts or {}))
    unit.stale.update(
        stale_after_import(deck["class_id"], deck_id, created=imported.created, updated=imported.updated)
    )
    return imported

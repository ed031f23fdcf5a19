"""Cards of a file into a deck: all or nothing, and as often as one likes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from server.domain.catalog.deck_files import DeckFormat, PackedDeck, Reading, pack_deck
from server.domain.editing.staleness import stale_after_import
from server.domain.writing import Unit
from server.errors import NotFound, ServiceUnavailable
from server.stores.postgres.database import DatabaseUnavailable


@dataclass(frozen=True, slots=True)
class Imported:
    """How many cards of the file are new, were changed, and were there already."""

    created: int
    updated: int
    unchanged: int


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
    # Two imports into one deck, one after the other: the second one knows the cards of the first.
    deck = await unit.transaction.fetch_one("lock_deck", deck_id=deck_id)
    if deck is None:
        raise NotFound("There is no such deck.")
    await unit.transaction.execute("expect_many_cards")
    created = updated = unchanged = 0
    known = await unit.transaction.fetch_one("hash_deck_questions", deck_id=deck_id)
    keeps_order = known is not None and bytes(known["questions"]) == packed.questions
    for batch in packed.batches:
        counts = await unit.transaction.fetch_one(
            "import_cards",
            deck_id=deck_id,
            first=batch.first,
            cards=batch.cards.decode(),
            keeps_order=keeps_order,
            is_published=True,
        )
        if counts is not None:
            created += counts["created"]
            updated += counts["updated"]
            unchanged += counts["unchanged"]
    imported = Imported(created, updated, unchanged)
    unit.stale.update(
        stale_after_import(deck["class_id"], deck_id, created=imported.created, updated=imported.updated)
    )
    return imported

"""Cards of a file into a deck: all or nothing, and as often as one likes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from server.domain.deck_files import DeckFormat, as_json, parse_deck
from server.domain.editing.staleness import stale_after_import
from server.domain.editing.writer import CatalogWriter
from server.errors import NotFound
from server.stores.database import Transaction


@dataclass(frozen=True, slots=True)
class Imported:
    """How many cards of the file are new, were changed, and were there already."""

    created: int
    updated: int
    unchanged: int


class DeckImports:
    """Imports files into decks. A card is known by its question within its deck."""

    def __init__(self, writer: CatalogWriter) -> None:
        self._writer = writer

    async def import_deck_file(self, deck_id: UUID, content: bytes, deck_format: DeckFormat) -> Imported:
        """Merge the cards of a file into a deck; cards that the file does not have stay.

        Args:
            deck_id: published or not.
            content: the file, in UTF-8.
            deck_format: how it is written.

        Raises:
            NotFound: there is no such deck.
            DeckFileError: a row can't be imported; nothing was.
        """
        # Some hundred milliseconds for the largest files: not in the thread that answers everybody else.
        cards = await asyncio.to_thread(lambda: as_json(parse_deck(content, deck_format)))

        async def work(transaction: Transaction, stale: set[str]) -> Imported:
            # Two imports into one deck, one after the other: the second one knows the cards of the first.
            deck = await transaction.fetch_one("lock_deck", deck_id=deck_id)
            if deck is None:
                raise NotFound("There is no such deck.")
            counts = await transaction.fetch_one("import_cards", deck_id=deck_id, cards=cards)
            imported = Imported(**(counts or {}))
            stale |= stale_after_import(
                deck["class_id"], deck_id, created=imported.created, updated=imported.updated
            )
            return imported

        return await self._writer.run(work)

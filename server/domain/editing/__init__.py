"""Changing the course: what administrators do to classes, decks and cards, visible to every reader at once."""

from __future__ import annotations

from server.domain.editing.classes import ClassEditing
from server.domain.editing.decks import DeckEditing
from server.domain.editing.flashcards import FlashcardEditing
from server.domain.editing.imports import DeckImports
from server.domain.editing.writer import CatalogWriter
from server.stores.cache import Cache
from server.stores.database import Database

__all__ = ["Editing"]


class Editing:
    """The editors of the course, by what they edit."""

    def __init__(self, database: Database, cache: Cache) -> None:
        writer = CatalogWriter(database, cache)
        self.classes = ClassEditing(database, writer)
        self.decks = DeckEditing(database, writer)
        self.flashcards = FlashcardEditing(database, writer)
        self.imports = DeckImports(writer)

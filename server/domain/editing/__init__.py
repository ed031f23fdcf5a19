"""Changing the course: what administrators do to classes, decks and cards, visible to every reader at once."""

from __future__ import annotations

from server.domain.editing.classes import ClassEditing
from server.domain.editing.decks import DeckEditing
from server.domain.editing.flashcards import FlashcardEditing
from server.stores.postgres.database import Database

__all__ = ["Editing"]


class Editing:
    """What administrators read of the course; their writes are functions of the modules beside it."""

    def __init__(self, database: Database) -> None:
        self.classes = ClassEditing(database)
        self.decks = DeckEditing(database)
        self.flashcards = FlashcardEditing(database)

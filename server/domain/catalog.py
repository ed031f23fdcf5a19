"""The shared content: classes, decks and cards as everybody sees them, cached once for all readers."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from server.errors import NotFound
from server.stores.cache import Cache, Lookup
from server.stores.database import Database

CLASSES_KEY = "c:classes"


@functools.lru_cache(maxsize=10_000)
def class_key(class_id: UUID) -> str:
    """Where a class with its decks is cached."""
    return f"c:class:{class_id}"


def deck_key(deck_id: UUID | str) -> str:
    """Where a deck with its cards is cached."""
    return f"c:deck:{deck_id}"


def class_position(entry: dict[str, Any]) -> list[Any]:
    """Where a listed class comes: by order, then name, by code points; the id makes it unique."""
    return [entry["order"], entry["name"], entry["id"]]


class Catalog:
    """Reads published content; every method answers with plain values in the form of the API."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self.cache = cache

    async def list_published_classes(self) -> list[dict[str, Any]]:
        """All published classes with their counts, by order, then name."""

        async def load() -> list[dict[str, Any]]:
            rows = await self._database.fetch_all("list_published_classes")
            listed = [
                {
                    "id": str(row["id"]),
                    "name": row["name"],
                    "description": row["description"],
                    "order": row["sort_order"],
                    "icon": row["icon"],
                    "color": row["color"],
                    "deckCount": row["deck_count"],
                    "cardCount": row["card_count"],
                }
                for row in rows
            ]
            # Its pages are cut here, so its order is ours too: the database's may depend on a language.
            return sorted(listed, key=class_position)

        classes: list[dict[str, Any]] = await self.cache.lookup(CLASSES_KEY).value(load)
        return classes

    def read_class(self, lookup: Lookup, class_id: UUID) -> ClassLookup:
        """A class with its decks, from a lookup of its key that travels with the lookup of its reader's overlay."""
        return ClassLookup(self._database, lookup, class_id)

    async def get_deck(self, deck_id: UUID) -> dict[str, Any]:
        """A published deck and its published cards.

        Raises:
            NotFound: it is unknown or not published.
        """
        return await self._read_deck(deck_id, self.cache.lookup(deck_key(deck_id)))

    async def get_decks(self, deck_ids: Iterable[UUID]) -> list[dict[str, Any]]:
        """Several decks with their cards, asked for in one go; one that has vanished meanwhile is left out."""
        lookups = [(deck_id, self.cache.lookup(deck_key(deck_id))) for deck_id in deck_ids]
        decks = []
        for deck_id, lookup in lookups:
            try:
                decks.append(await self._read_deck(deck_id, lookup))
            except NotFound:
                continue
        return decks

    async def _read_deck(self, deck_id: UUID, lookup: Lookup) -> dict[str, Any]:
        async def load() -> dict[str, Any] | None:
            deck = await self._database.fetch_one("get_published_deck", deck_id=deck_id)
            if deck is None:
                return None
            cards = await self._database.fetch_all("list_deck_cards", deck_id=deck_id)
            return {
                "deck": {
                    "id": str(deck["id"]),
                    "name": deck["name"],
                    "description": deck["description"],
                    "classId": str(deck["class_id"]),
                    "className": deck["class_name"],
                },
                "flashcards": [
                    {
                        "id": str(card["id"]),
                        "question": card["question"],
                        "answer": card["answer"],
                        "explanation": card["explanation"],
                        "order": card["sort_order"],
                    }
                    for card in cards
                ],
                "total": len(cards),
            }

        deck: dict[str, Any] | None = await lookup.value(load)
        if deck is None:
            raise NotFound("There is no such deck.")
        return deck


class ClassLookup:
    """A class on its way from the cache."""

    __slots__ = ("_class_id", "_database", "_lookup")

    def __init__(self, database: Database, lookup: Lookup, class_id: UUID) -> None:
        self._database = database
        self._lookup = lookup
        self._class_id = class_id

    async def value(self) -> dict[str, Any]:
        """The class: id, name, description, icon, color, decks (id, name, description, cardCount, order), fingerprint.

        The fingerprint changes whenever the set of published cards does.

        Raises:
            NotFound: it is unknown or not published.
        """
        content: dict[str, Any] | None = await self._lookup.value(self._load)
        if content is None:
            raise NotFound("There is no such class.")
        return content

    async def _load(self) -> dict[str, Any] | None:
        found = await self._database.fetch_one("get_published_class", class_id=self._class_id)
        if found is None:
            return None
        decks = await self._database.fetch_all("list_class_decks", class_id=self._class_id)
        return {
            "id": str(found["id"]),
            "name": found["name"],
            "description": found["description"],
            "icon": found["icon"],
            "color": found["color"],
            "decks": [
                {
                    "id": str(deck["id"]),
                    "name": deck["name"],
                    "description": deck["description"],
                    "cardCount": deck["card_count"],
                    "order": deck["sort_order"],
                }
                for deck in decks
            ],
            "fingerprint": " ".join(f"{deck['id']}={deck['fingerprint']}" for deck in decks),
        }

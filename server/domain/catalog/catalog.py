"""The shared content: classes, decks and cards as every reader sees them, cached once for all readers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from server.errors import NotFound
from server.stores.cache.cache import Cache, Lookup
from server.stores.postgres.database import Database

CLASSES_KEY = "c:classes"


@functools.lru_cache(maxsize=10_000)
def class_key(class_id: UUID) -> str:
    """Where a class with its decks is cached."""
    return f"c:class:{class_id}"


def deck_key(deck_id: UUID | str) -> str:
    """Where a deck with its cards is cached."""
    return f"c:deck:{deck_id}"


def position(entry: dict[str, Any]) -> list[Any]:
    """Where a class or deck comes in its list: by order, then name, by code points; the id makes it unique."""
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
            return sorted(listed, key=position)

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
        for deck in await self.get_decks([deck_id]):
            return deck
        raise NotFound("There is no such deck.")

    async def get_decks(self, deck_ids: Sequence[UUID]) -> list[dict[str, Any]]:
        """Several decks with their cards, asked for in one go; one that is not published is left out."""
        if not deck_ids:
            return []
        lookups = self.cache.lookup_each(*map(deck_key, deck_ids))
        loader = _DeckLoader(self._database)
        decks = await asyncio.gather(
            *(
                lookup.value(functools.partial(loader.load, deck_id), usable=_has_categories)
                for deck_id, lookup in zip(deck_ids, lookups, strict=True)
            )
        )
        return [deck for deck in decks if deck is not None]


class _DeckLoader:
    """Decks from the database, in two queries however many are asked for at the same moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: list[UUID] = []
        self._loading: asyncio.Task[dict[str, dict[str, Any]]] | None = None

    async def load(self, deck_id: UUID) -> dict[str, Any] | None:
        """A deck in the form of the API, read after this call; None where it is not published."""
        self._wanted.append(deck_id)
        if self._loading is None:
            self._loading = asyncio.create_task(self._load_wanted())
        return (await self._loading).get(str(deck_id))

    async def _load_wanted(self) -> dict[str, dict[str, Any]]:
        wanted, self._wanted, self._loading = self._wanted, [], None
        rows = await self._database.fetch_all("find_published_decks", deck_ids=wanted)
        decks: dict[str, dict[str, Any]] = {str(row["id"]): _describe_deck(row) for row in rows}
        if not decks:
            return decks
        for card in await self._database.fetch_all("list_deck_cards", deck_ids=[row["id"] for row in rows]):
            decks[str(card["deck_id"])]["flashcards"].append(_describe_card(card))
        for deck in decks.values():
            deck["total"] = len(deck["flashcards"])
        return decks


def _describe_deck(row: dict[str, Any]) -> dict[str, Any]:
    """A deck whose cards are still to come."""
    return {
        "deck": {
            "id": str(row["id"]),
            "name": row["name"],
            "description": row["description"],
            "classId": str(row["class_id"]),
            "className": row["class_name"],
        },
        "flashcards": [],
        "total": 0,
    }


def _has_categories(deck: dict[str, Any] | None) -> bool:
    """Whether a cached deck is one of this release: the one before it left the categories out."""
    return deck is None or not deck["flashcards"] or "category" in deck["flashcards"][0]


def _describe_card(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "question": row["question"],
        "answer": row["answer"],
        "explanation": row["explanation"],
        "category": row["category"],
        "order": row["sort_order"],
    }


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
            "decks": sorted(
                (
                    {
                        "id": str(deck["id"]),
                        "name": deck["name"],
                        "description": deck["description"],
                        "cardCount": deck["card_count"],
                        "order": deck["sort_order"],
                    }
                    for deck in decks
                ),
                key=position,
            ),
            "fingerprint": " ".join(f"{deck['id']}={deck['fingerprint']}" for deck in decks),
        }

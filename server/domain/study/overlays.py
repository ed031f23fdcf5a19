"""What one reader adds to the shared content: their counts and their progress, cached per user and class."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from server.domain.values import iso_timestamp
from server.stores.cache.cache import Lookup
from server.stores.postgres.database import Database


def overlay_keys(user_id: UUID, class_id: UUID) -> tuple[str, str]:
    """The keys that a rating of one of the class's cards by the user makes stale."""
    return (counts_key(user_id, class_id), cards_key(user_id, class_id))


@functools.lru_cache(maxsize=10_000)
def counts_key(user_id: UUID, class_id: UUID) -> str:
    """Where a user's counts by deck and mastery are cached, for one class."""
    return f"o:{user_id}:{class_id}:counts"


def cards_key(user_id: UUID, class_id: UUID) -> str:
    """Where a user's progress card by card is cached, for one class."""
    return f"o:{user_id}:{class_id}:cards"


class Overlays:
    """Reads a user's part of a class. An overlay made for another set of published cards is made anew."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read_counts(self, lookup: Lookup, user_id: UUID, class_id: UUID) -> CountsLookup:
        """The number of studied cards by deck and mastery, from a lookup of `counts_key`."""
        return CountsLookup(self._database, lookup, user_id, class_id)

    def read_cards(self, lookup: Lookup, user_id: UUID, class_id: UUID) -> CardsLookup:
        """The progress card by card, from a lookup of `cards_key`."""
        return CardsLookup(self._database, lookup, user_id, class_id)


class _OverlayLookup:
    __slots__ = ("_class_id", "_database", "_lookup", "_user_id")

    def __init__(self, database: Database, lookup: Lookup, user_id: UUID, class_id: UUID) -> None:
        self._database = database
        self._lookup = lookup
        self._user_id = user_id
        self._class_id = class_id

    async def value(self, fingerprint: str) -> dict[str, Any]:
        """The overlay for the set of cards with this fingerprint (of the class's content)."""

        async def load() -> dict[str, Any]:
            return {"fingerprint": fingerprint, "overlay": await self._load()}

        def usable(cached: dict[str, Any]) -> bool:
            return bool(cached["fingerprint"] == fingerprint)

        loaded = await self._lookup.value(load, usable=usable)
        overlay: dict[str, Any] = loaded["overlay"]
        return overlay

    async def _load(self) -> dict[str, Any]:
        raise NotImplementedError


class CountsLookup(_OverlayLookup):
    """{deckId: {"new": n, "learning": n, "mastered": n}}, decks and statuses without cards left out."""

    __slots__ = ()

    async def _load(self) -> dict[str, Any]:
        rows = await self._database.fetch_all(
            "list_class_mastery", user_id=self._user_id, class_id=self._class_id
        )
        return describe_counts(rows)


class CardsLookup(_OverlayLookup):
    """{flashcardId: {confidenceLevel, masteryStatus, nextReviewDate, lastSeen}}, unseen cards left out."""

    __slots__ = ()

    async def _load(self) -> dict[str, Any]:
        rows = await self._database.fetch_all(
            "list_class_progress", user_id=self._user_id, class_id=self._class_id
        )
        return describe_cards(rows)


def describe_counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Counts by deck and mastery, as CountsLookup gives them."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        counts.setdefault(str(row["deck_id"]), {})[row["mastery_status"]] = row["cards"]
    return counts


def describe_cards(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of user_card_progress, as CardsLookup gives them."""
    return {
        str(row["flashcard_id"]): {
            "confidenceLevel": row["confidence_level"],
            "masteryStatus": row["mastery_status"],
            "nextReviewDate": iso_timestamp(row["next_review_at"]),
            "lastSeen": iso_timestamp(row["last_seen_at"]),
        }
        for row in rows
    }

"""What one reader adds to the shared content: their counts and their progress, cached per user and class."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from server.domain.values import iso_timestamp
from server.stores.cache import Cache, Lookup
from server.stores.database import Database


def overlay_keys(user_id: UUID, class_id: UUID) -> tuple[str, str]:
    """The keys that a rating of one of the class's cards by the user makes stale."""
    return (_counts_key(user_id, class_id), _cards_key(user_id, class_id))


def _counts_key(user_id: UUID, class_id: UUID) -> str:
    return f"o:{user_id}:{class_id}:counts"


def _cards_key(user_id: UUID, class_id: UUID) -> str:
    return f"o:{user_id}:{class_id}:cards"


class Overlays:
    """Reads a user's part of a class. An overlay made for another set of published cards is made anew."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache

    def look_up_counts(self, user_id: UUID, class_id: UUID) -> CountsLookup:
        """The number of studied cards by deck and mastery, asked for now and read later."""
        lookup = self._cache.lookup(_counts_key(user_id, class_id))
        return CountsLookup(self._database, lookup, user_id, class_id)

    def look_up_cards(self, user_id: UUID, class_id: UUID) -> CardsLookup:
        """The progress card by card, asked for now and read later."""
        lookup = self._cache.lookup(_cards_key(user_id, class_id))
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
        counts: dict[str, dict[str, int]] = {}
        for row in rows:
            counts.setdefault(str(row["deck_id"]), {})[row["mastery_status"]] = row["cards"]
        return counts


class CardsLookup(_OverlayLookup):
    """{flashcardId: {confidenceLevel, masteryStatus, nextReviewDate, lastSeen}}, unseen cards left out."""

    __slots__ = ()

    async def _load(self) -> dict[str, Any]:
        rows = await self._database.fetch_all(
            "list_class_progress", user_id=self._user_id, class_id=self._class_id
        )
        return {
            str(row["flashcard_id"]): {
                "confidenceLevel": row["confidence_level"],
                "masteryStatus": row["mastery_status"],
                "nextReviewDate": iso_timestamp(row["next_review_at"]),
                "lastSeen": iso_timestamp(row["last_seen_at"]),
            }
            for row in rows
        }

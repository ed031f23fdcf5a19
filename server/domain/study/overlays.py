"""Overlays: what one reader adds to the shared content, counts and progress, cached per user and class.

A rating replaces the overlays of its user in the cache with their successors, which the transaction can compute. So the
next page finds them in the cache. Three rules keep them true:

* The overlays are read before the transaction commits. A user's ratings happen one after another, so what is read
  there can't hold anything newer than what this transaction writes.
* They are replaced after the commit, and only if the cache still holds the version that was read. If another write or
  a reader's fill came in between, a tombstone takes their place (lua/replace_cache.lua).
* Counts hold for a set of published cards, which the fingerprint on the class's page stands for. They are read after
  that page: they may be newer than it, in which case no reader asks for them, but never older.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from server.clock import iso_timestamp
from server.domain.catalog.catalog import class_key
from server.domain.writing import Consequences
from server.stores.cache.cache import Cache, CacheKeys, Kept, Lookup, Lookups
from server.stores.cache.values import Successor
from server.stores.postgres.database import Database


def overlay_keys(user_id: UUID, class_id: UUID) -> tuple[str, str]:
    """The keys that a rating of one of the class's cards by the user makes stale."""
    return (counts_key(user_id, class_id), cards_key(user_id, class_id))


@functools.lru_cache(maxsize=2_000)
def _keys_of(user_id: UUID, class_id: UUID) -> CacheKeys:
    """What a rating asks the cache for: the class's page, and the user's overlays of it."""
    return CacheKeys(class_key(class_id), *overlay_keys(user_id, class_id))


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


Row = Mapping[str, Any]
# An overlay of more cards than this is left to the next reader: it would be written anew with every rating.
_MOST_CARDS = 500


@dataclass(frozen=True, slots=True)
class OverlaysSeen:
    """What the cache held of a class and of the user's overlays of it, while a transaction was under way."""

    user_id: UUID
    class_id: UUID
    page: Kept | None
    counts: Kept | None
    cards: Kept | None

    @property
    def has_counts(self) -> bool:
        """Whether there are counts, of the cards that the page has."""
        return (
            self.page is not None
            and self.counts is not None
            and _fingerprint(self.counts) == _fingerprint(self.page)
        )

    def replace(
        self, unit: Consequences, *, counts: Sequence[Row], rated: Sequence[Mapping[str, Any]]
    ) -> None:
        """Say in the unit what will be at these keys.

        Args:
            unit: the unit of work, whose statement is done.
            counts: what the user has by mastery in the decks with rated cards, read by the transaction after this was
                seen.
            rated: the progress of the rated cards as it is answered.
        """
        if self.counts is not None and self.has_counts and counts:
            successor = _with_entries(self.counts, describe_counts(counts))
            unit.successors[counts_key(self.user_id, self.class_id)] = successor
        if self.cards is not None and len(self.cards.value["overlay"]) <= _MOST_CARDS:
            entries = {
                progress["flashcardId"]: {
                    "confidenceLevel": progress["confidenceLevel"],
                    "masteryStatus": progress["masteryStatus"],
                    "nextReviewDate": progress["nextReviewDate"],
                    "lastSeen": progress["lastSeenDate"],
                }
                for progress in rated
            }
            unit.successors[cards_key(self.user_id, self.class_id)] = _with_entries(self.cards, entries)


class OverlaysToSee:
    """Pending lookups of overlays and their pages.

    Attributes:
        keys: those of the overlays, which the ratings make stale.
    """

    def __init__(self, cache: Cache, user_id: UUID, class_ids: Iterable[UUID]) -> None:
        """Ask now; the answers come while something else is done."""
        self._user_id = user_id
        self._lookups: list[tuple[UUID, Lookups]] = []
        self.keys: list[str] = []
        for class_id in class_ids:
            asked = _keys_of(user_id, class_id)
            self._lookups.append((class_id, cache.lookups(asked)))
            self.keys += asked.names[1:]

    async def arrive(self) -> list[OverlaysSeen]:
        """Wait for the answers: one for each class."""
        return [
            OverlaysSeen(self._user_id, class_id, *await lookups.kept())
            for class_id, lookups in self._lookups
        ]


def _fingerprint(kept: Kept) -> str:
    fingerprint: str = kept.value["fingerprint"]
    return fingerprint


def _with_entries(overlay: Kept, entries: Mapping[str, Any]) -> Successor:
    return overlay.succeeded_by({**overlay.value, "overlay": {**overlay.value["overlay"], **entries}})

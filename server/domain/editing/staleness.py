"""Which cached pages a change of the course makes stale: the one place that knows what is shown where.

| page                        | shows                                                                          |
|-----------------------------|--------------------------------------------------------------------------------|
| the classes (`c:classes`)   | all of each class, and how many of its decks and cards are published           |
| a class (`c:class:<id>`)    | all but its order; all of its decks, and which of their cards are published    |
| a deck (`c:deck:<id>`)      | all but its order, and its class's name; all of its cards but their category   |

Drafts are on no page: for readers, a row that is not published is not there. The overlays of readers need no
invalidation: they are versioned by the fingerprint on the page of their class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from server.domain.catalog.catalog import CLASSES_KEY, class_key, deck_key

Row = Mapping[str, Any]

# The row comes, goes, or moves elsewhere: numbers on the pages around it change, too.
_CLASS_PRESENCE = frozenset({"is_published"})
_DECK_PRESENCE = frozenset({"is_published", "class_id"})
_CARD_PRESENCE = frozenset({"is_published", "deck_id"})

_CLASS_LISTED = frozenset({"name", "description", "icon", "color", "sort_order"})
_CLASS_SHOWN = frozenset({"name", "description", "icon", "color"})
_DECK_LISTED = frozenset({"name", "description", "sort_order"})
_DECK_SHOWN = frozenset({"name", "description"})
_CARD_SHOWN = frozenset({"question", "answer", "explanation", "sort_order"})


def stale_after_class(before: Row | None, after: Row | None, deck_ids: Iterable[UUID]) -> set[str]:
    """The cache keys that a change of a class makes stale.

    Args:
        before: the row as it was, None for a new one.
        after: the row as it is, None for a deleted one.
        deck_ids: the decks of the class.
    """
    rows, changed = _seen(before, after)
    keys: set[str] = set()
    if changed & (_CLASS_LISTED | _CLASS_PRESENCE):
        keys.add(CLASSES_KEY)
    if changed & (_CLASS_SHOWN | _CLASS_PRESENCE):
        keys.update(class_key(row["id"]) for row in rows)
    if changed & ({"name"} | _CLASS_PRESENCE):
        keys.update(deck_key(deck_id) for deck_id in deck_ids)
    return keys


def stale_after_deck(before: Row | None, after: Row | None) -> set[str]:
    """The cache keys that a change of a deck makes stale. Args: as of `stale_after_class`."""
    rows, changed = _seen(before, after)
    keys: set[str] = set()
    if changed & _DECK_PRESENCE:
        keys.add(CLASSES_KEY)
    if changed & (_DECK_LISTED | _DECK_PRESENCE):
        keys.update(class_key(row["class_id"]) for row in rows)
    if changed & (_DECK_SHOWN | _DECK_PRESENCE):
        keys.update(deck_key(row["id"]) for row in rows)
    return keys


def stale_after_card(before: Row | None, after: Row | None, class_of: Mapping[UUID, UUID]) -> set[str]:
    """The cache keys that a change of a card makes stale.

    Args:
        before: the row as it was, None for a new one.
        after: the row as it is, None for a deleted one.
        class_of: the classes of their decks.
    """
    rows, changed = _seen(before, after)
    keys: set[str] = set()
    if changed & _CARD_PRESENCE:
        keys.add(CLASSES_KEY)
        keys.update(class_key(class_of[row["deck_id"]]) for row in rows)
    if changed & (_CARD_SHOWN | _CARD_PRESENCE):
        keys.update(deck_key(row["deck_id"]) for row in rows)
    return keys


def stale_after_import(
    class_id: UUID, deck_id: UUID, *, created: int, updated: int, is_frame_changed: bool = False
) -> set[str]:
    """The cache keys that an import into a deck makes stale.

    Args:
        class_id: of the deck.
        deck_id: where the cards are.
        created: how many cards are new.
        updated: how many cards were changed.
        is_frame_changed: whether the class or the deck itself is new or changed.
    """
    if created or is_frame_changed:
        return {CLASSES_KEY, class_key(class_id), deck_key(deck_id)}
    return {deck_key(deck_id)} if updated else set()


def changed_fields(before: Row, after: Row) -> frozenset[str]:
    """The fields whose values differ; `after` may have only some of them."""
    return frozenset(name for name, value in after.items() if before[name] != value)


def _seen(before: Row | None, after: Row | None) -> tuple[list[Row], frozenset[str]]:
    """What a reader could and can see of a row, and which of its fields differ between the two."""
    seen = [row for row in (before, after) if row is not None and row["is_published"]]
    if len(seen) == 2:
        return seen, changed_fields(seen[0], seen[1])
    return seen, frozenset({"is_published"}) if seen else frozenset()

"""Changing the course: classes, decks and cards as administrators see them, drafts included.

A write is visible to every reader at once: it names the cached pages that it makes stale. It takes its locks from the
top, as an import does: the decks that lose or get a card come first, then the card. A locked deck does not move to
another class: its class's page is known.

Which cached pages a change makes stale is decided here, the one place that knows what is shown where:

| page                        | shows                                                                          |
|-----------------------------|--------------------------------------------------------------------------------|
| the classes (`c:classes`)   | all of each class, and how many of its decks and cards are published           |
| a class (`c:class:<id>`)    | all but its order; all of its decks, and which of their cards are published    |
| a deck (`c:deck:<id>`)      | all but its order, and its class's name; all of its cards but their category   |

Drafts are on no page: for readers, a row that is not published is not there. The overlays of readers need no
invalidation: they are versioned by the fingerprint on the page of their class.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from server.domain.catalog.catalog import CLASSES_KEY, class_key, deck_key
from server.domain.writing import Unit
from server.errors import InvalidInput, NotFound
from server.stores.postgres.database import Database, Transaction

Row = dict[str, Any]
Shown = Mapping[str, Any]
# The row comes, goes, or moves elsewhere: numbers on the pages around it change, too.
_CLASS_PRESENCE = frozenset({"is_published"})
_DECK_PRESENCE = frozenset({"is_published", "class_id"})
_CARD_PRESENCE = frozenset({"is_published", "deck_id"})
_CLASS_LISTED = frozenset({"name", "description", "icon", "color", "sort_order"})
_CLASS_SHOWN = frozenset({"name", "description", "icon", "color"})
_DECK_LISTED = frozenset({"name", "description", "sort_order"})
_DECK_SHOWN = frozenset({"name", "description"})
_CARD_SHOWN = frozenset({"question", "answer", "explanation", "sort_order"})


@dataclass(frozen=True, slots=True)
class Edited:
    """A row after its change, and the columns that really changed."""

    row: Row
    changed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of thing in the course, and what administrators do to it.

    Attributes:
        name: in paths and audit events.
        plural: the same of several.
        noun: in a sentence.
        position: the columns by which its list is ordered, which together are unlike every other row's.
        list_query: its list, a page at a time; takes the filters, `after_` and the name of each column of the position,
            and `page_size`.
        get_query: one row.
        create: makes one of the values of its columns; returns its row.
        update: changes those columns that are given.
        delete: deletes one with all that belongs to it.
    """

    name: str
    plural: str
    noun: str
    position: tuple[str, ...]
    list_query: str
    get_query: str
    create: Callable[[Unit, Mapping[str, Any]], Awaitable[Row]]
    update: Callable[[Unit, UUID, Mapping[str, Any]], Awaitable[Edited]]
    delete: Callable[[Unit, UUID], Awaitable[None]]

    async def page(
        self, database: Database, filters: Mapping[str, Any], *, after: Sequence[Any] | None, page_size: int
    ) -> list[Row]:
        """Rows in the order of `position`.

        Args:
            database: where they are.
            filters: what its query takes beside the position; None for a filter that is not asked for.
            after: the position of the last row before the page, as `position_of` gave it; None for the first page.
            page_size: how many at most.
        """
        values = [None] * len(self.position) if after is None else after
        place = {f"after_{column}": value for column, value in zip(self.position, values, strict=True)}
        return await database.fetch_all(self.list_query, **filters, **place, page_size=page_size)

    async def get(self, database: Database, row_id: UUID) -> Row:
        """One of them.

        Raises:
            NotFound: it is unknown.
        """
        found = await database.fetch_one(self.get_query, **{f"{self.name}_id": row_id})
        return _found(found, self.noun)

    def position_of(self, row: Row) -> list[Any]:
        """Where a row stands in the list, in values of JSON."""
        return [
            str(row[column]) if isinstance(row[column], UUID) else row[column] for column in self.position
        ]


_CLASS_COLUMNS = ("name", "description", "icon", "color", "sort_order", "is_published", "scheduler")


async def create_class(unit: Unit, values: Mapping[str, Any]) -> Row:
    """Make a class; values: by column. Returns its row."""
    transaction = unit.transaction
    row = _found(await transaction.fetch_one("create_class", **values), "class")
    unit.stale.update(stale_after_class(None, row, ()))
    return row


async def update_class(unit: Unit, class_id: UUID, changes: Mapping[str, Any]) -> Edited:
    """Change those columns of a class that are given.

    Raises:
        NotFound: it is unknown.
    """
    transaction = unit.transaction
    before = _found(await transaction.fetch_one("lock_class", class_id=class_id), "class")
    changed = changed_fields(before, changes)
    if not changed:
        return Edited(before, changed)
    values = {column: changes.get(column, before[column]) for column in _CLASS_COLUMNS}
    after = _found(await transaction.fetch_one("update_class", class_id=class_id, **values), "class")
    # The lock keeps decks from coming in until this is committed: none is missing here.
    decks = await transaction.fetch_all("list_deck_ids", class_id=class_id)
    unit.stale.update(stale_after_class(before, after, [deck["id"] for deck in decks]))
    return Edited(after, changed)


async def delete_class(unit: Unit, class_id: UUID) -> None:
    """Delete a class with its decks, their cards, and all progress on them.

    Raises:
        NotFound: it is unknown.
    """
    transaction = unit.transaction
    before = _found(await transaction.fetch_one("lock_class", class_id=class_id), "class")
    decks = await transaction.fetch_all("lock_decks_of_class", class_id=class_id)
    deck_ids = [deck["id"] for deck in decks]
    await transaction.execute("delete_class", class_id=class_id)
    unit.stale.update(stale_after_class(before, None, deck_ids))


_DECK_COLUMNS = ("class_id", "name", "description", "sort_order", "is_published")


async def create_deck(unit: Unit, values: Mapping[str, Any]) -> Row:
    """Make a deck; values: by column. Returns its row.

    Raises:
        InvalidInput: there is no such class.
    """
    row = await unit.transaction.fetch_one("create_deck", **values)
    if row is None:
        raise _unknown("classId", "class")
    unit.stale.update(stale_after_deck(None, row))
    return row


async def update_deck(unit: Unit, deck_id: UUID, changes: Mapping[str, Any]) -> Edited:
    """Change those columns of a deck that are given; another class_id moves it.

    Raises:
        NotFound: it is unknown.
        InvalidInput: there is no such class.
    """
    transaction = unit.transaction
    before = _found(await transaction.fetch_one("lock_deck", deck_id=deck_id), "deck")
    changed = changed_fields(before, changes)
    if not changed:
        return Edited(before, changed)
    values = {column: changes.get(column, before[column]) for column in _DECK_COLUMNS}
    after = await transaction.fetch_one("update_deck", deck_id=deck_id, **values)
    if after is None:
        raise _unknown("classId", "class")
    unit.stale.update(stale_after_deck(before, after))
    return Edited(after, changed)


async def delete_deck(unit: Unit, deck_id: UUID) -> None:
    """Delete a deck with its cards and all progress on them.

    Raises:
        NotFound: it is unknown.
    """
    transaction = unit.transaction
    before = _found(await transaction.fetch_one("lock_deck", deck_id=deck_id), "deck")
    await transaction.execute("delete_deck", deck_id=deck_id)
    unit.stale.update(stale_after_deck(before, None))


_CARD_COLUMNS = ("deck_id", "question", "answer", "explanation", "category", "sort_order", "is_published")


async def create_flashcard(unit: Unit, values: Mapping[str, Any]) -> Row:
    """Make a card; values: by column. Returns its row.

    Raises:
        InvalidInput: there is no such deck.
    """
    transaction = unit.transaction
    class_of = await _lock_decks(transaction, flashcard_id=None, deck_id=values["deck_id"])
    if values["deck_id"] not in class_of:
        raise _unknown("deckId", "deck")
    row = _found(await transaction.fetch_one("create_flashcard", **values), "card")
    unit.stale.update(stale_after_card(None, row, class_of))
    return row


async def update_flashcard(unit: Unit, flashcard_id: UUID, changes: Mapping[str, Any]) -> Edited:
    """Change those columns of a card that are given; another deck_id moves it.

    Raises:
        NotFound: it is unknown.
        InvalidInput: there is no such deck.
    """
    transaction = unit.transaction
    before, class_of = await _lock_card(transaction, flashcard_id, changes.get("deck_id"))
    changed = changed_fields(before, changes)
    if not changed:
        return Edited(before, changed)
    values = {column: changes.get(column, before[column]) for column in _CARD_COLUMNS}
    if values["deck_id"] not in class_of:
        raise _unknown("deckId", "deck")
    after = _found(
        await transaction.fetch_one("update_flashcard", flashcard_id=flashcard_id, **values), "card"
    )
    unit.stale.update(stale_after_card(before, after, class_of))
    return Edited(after, changed)


async def delete_flashcard(unit: Unit, flashcard_id: UUID) -> None:
    """Delete a card and all progress on it.

    Raises:
        NotFound: it is unknown.
    """
    transaction = unit.transaction
    before, class_of = await _lock_card(transaction, flashcard_id, None)
    await transaction.execute("delete_flashcard", flashcard_id=flashcard_id)
    unit.stale.update(stale_after_card(before, None, class_of))


async def _lock_decks(
    transaction: Transaction, *, flashcard_id: UUID | None, deck_id: UUID | None
) -> dict[UUID, UUID]:
    """Lock a card's deck and another one, where they are given and exist: their classes by their ids."""
    rows = await transaction.fetch_all("lock_decks_of_card", flashcard_id=flashcard_id, deck_id=deck_id)
    return {row["id"]: row["class_id"] for row in rows}


async def _lock_card(
    transaction: Transaction, flashcard_id: UUID, deck_id: UUID | None
) -> tuple[dict[str, Any], dict[UUID, UUID]]:
    """Lock a card, its deck, and the one it may move to: the card's row, and the decks' classes.

    Raises:
        NotFound: there is no such card.
    """
    class_of = await _lock_decks(transaction, flashcard_id=flashcard_id, deck_id=deck_id)
    row = _found(await transaction.fetch_one("lock_flashcard", flashcard_id=flashcard_id), "card")
    if row["deck_id"] not in class_of:  # moved between the two statements; from now on it stays
        class_of |= await _lock_decks(transaction, flashcard_id=flashcard_id, deck_id=None)
    return row, class_of


def _found(row: Row | None, noun: str) -> Row:
    if row is None:
        raise NotFound(f"There is no such {noun}.")
    return row


def _unknown(field: str, noun: str) -> InvalidInput:
    return InvalidInput(errors={field: f"There is no such {noun}."})


CLASSES = Resource(
    name="class",
    plural="classes",
    noun="class",
    position=("sort_order", "name", "id"),
    list_query="list_classes",
    get_query="get_class",
    create=create_class,
    update=update_class,
    delete=delete_class,
)

DECKS = Resource(
    name="deck",
    plural="decks",
    noun="deck",
    position=("class_id", "sort_order", "name", "id"),
    list_query="list_decks",
    get_query="get_deck",
    create=create_deck,
    update=update_deck,
    delete=delete_deck,
)

FLASHCARDS = Resource(
    name="flashcard",
    plural="flashcards",
    noun="card",
    position=("deck_id", "sort_order", "id"),
    list_query="list_flashcards",
    get_query="get_flashcard",
    create=create_flashcard,
    update=update_flashcard,
    delete=delete_flashcard,
)


def stale_after_class(before: Shown | None, after: Shown | None, deck_ids: Iterable[UUID]) -> set[str]:
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


def stale_after_deck(before: Shown | None, after: Shown | None) -> set[str]:
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


def stale_after_card(before: Shown | None, after: Shown | None, class_of: Mapping[UUID, UUID]) -> set[str]:
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
    """The cache keys that an import into a deck makes stale."""
    if created or is_frame_changed:
        return {CLASSES_KEY, class_key(class_id), deck_key(deck_id)}
    return {deck_key(deck_id)} if updated else set()


def changed_fields(before: Shown, after: Shown) -> frozenset[str]:
    """The fields whose values differ; `after` may have only some of them."""
    return frozenset(name for name, value in after.items() if before[name] != value)


def _seen(before: Shown | None, after: Shown | None) -> tuple[list[Shown], frozenset[str]]:
    """What a reader could and can see of a row, and which of its fields differ between the two."""
    seen = [row for row in (before, after) if row is not None and row["is_published"]]
    if len(seen) == 2:
        return seen, changed_fields(seen[0], seen[1])
    return seen, frozenset({"is_published"}) if seen else frozenset()

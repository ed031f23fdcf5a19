"""Which cached pages a change makes stale: neither one too few nor one too many."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from server.domain.editing.resources import (
    stale_after_card,
    stale_after_class,
    stale_after_deck,
    stale_after_import,
)

CLASS, OTHER_CLASS = UUID(int=1), UUID(int=2)
DECK, OTHER_DECK = UUID(int=3), UUID(int=4)
CARD = UUID(int=5)
LIST = "c:classes"
CLASS_PAGE, OTHER_CLASS_PAGE = f"c:class:{CLASS}", f"c:class:{OTHER_CLASS}"
DECK_PAGE, OTHER_DECK_PAGE = f"c:deck:{DECK}", f"c:deck:{OTHER_DECK}"

CLASS_ROW: dict[str, Any] = {
    "id": CLASS, "name": "n", "description": None, "icon": None, "color": None, "sort_order": 0, "is_published": True,
}  # fmt: skip
DECK_ROW: dict[str, Any] = {
    "id": DECK, "class_id": CLASS, "name": "n", "description": None, "sort_order": 0, "is_published": True,
}  # fmt: skip
CARD_ROW: dict[str, Any] = {
    "id": CARD, "deck_id": DECK, "question": "q", "answer": "a", "explanation": None, "category": None, "sort_order": 0,
    "is_published": True,
}  # fmt: skip
CLASS_OF = {DECK: CLASS, OTHER_DECK: OTHER_CLASS}


def _as_id(value: dict[str, Any] | set[str]) -> str:
    """The same in every process: a set has no order of its own."""
    return str(sorted(value) if isinstance(value, set) else value)


@pytest.mark.parametrize(
    ("change", "pages"),
    [
        ({}, set()),
        ({"name": "x"}, {LIST, CLASS_PAGE, DECK_PAGE, OTHER_DECK_PAGE}),
        ({"description": "x"}, {LIST, CLASS_PAGE}),
        ({"icon": "x"}, {LIST, CLASS_PAGE}),
        ({"color": "x"}, {LIST, CLASS_PAGE}),
        ({"sort_order": 1}, {LIST}),
        ({"is_published": False}, {LIST, CLASS_PAGE, DECK_PAGE, OTHER_DECK_PAGE}),
    ],
    ids=_as_id,
)
def test_a_changed_class(change: dict[str, Any], pages: set[str]) -> None:
    """A field of a class is stale where it is shown."""
    assert pages == stale_after_class(CLASS_ROW, CLASS_ROW | change, [DECK, OTHER_DECK])


@pytest.mark.parametrize(
    ("change", "pages"),
    [
        ({}, set()),
        ({"name": "x"}, {CLASS_PAGE, DECK_PAGE}),
        ({"description": "x"}, {CLASS_PAGE, DECK_PAGE}),
        ({"sort_order": 1}, {CLASS_PAGE}),
        ({"is_published": False}, {LIST, CLASS_PAGE, DECK_PAGE}),
        ({"class_id": OTHER_CLASS}, {LIST, CLASS_PAGE, OTHER_CLASS_PAGE, DECK_PAGE}),
        ({"class_id": OTHER_CLASS, "is_published": False}, {LIST, CLASS_PAGE, DECK_PAGE}),
    ],
    ids=_as_id,
)
def test_a_changed_deck(change: dict[str, Any], pages: set[str]) -> None:
    """A field of a deck is stale where it is shown; a move, in both classes that show it."""
    assert pages == stale_after_deck(DECK_ROW, DECK_ROW | change)


@pytest.mark.parametrize(
    ("change", "pages"),
    [
        ({}, set()),
        ({"question": "x"}, {DECK_PAGE}),
        ({"answer": "x"}, {DECK_PAGE}),
        ({"explanation": "x"}, {DECK_PAGE}),
        ({"sort_order": 1}, {DECK_PAGE}),
        ({"category": "x"}, set()),
        ({"is_published": False}, {LIST, CLASS_PAGE, DECK_PAGE}),
        ({"deck_id": OTHER_DECK}, {LIST, CLASS_PAGE, OTHER_CLASS_PAGE, DECK_PAGE, OTHER_DECK_PAGE}),
    ],
    ids=_as_id,
)
def test_a_changed_card(change: dict[str, Any], pages: set[str]) -> None:
    """A field of a card is stale where it is shown; a move, in both decks and classes."""
    assert pages == stale_after_card(CARD_ROW, CARD_ROW | change, CLASS_OF)


def test_what_comes_and_goes() -> None:
    """A row that is made, published or deleted changes the pages around it; both directions are the same."""
    class_pages, deck_pages = {LIST, CLASS_PAGE, DECK_PAGE}, {LIST, CLASS_PAGE, DECK_PAGE}
    draft = {"is_published": False}

    assert class_pages == stale_after_class(None, CLASS_ROW, [DECK])
    assert class_pages == stale_after_class(CLASS_ROW, None, [DECK])
    assert class_pages == stale_after_class(CLASS_ROW | draft, CLASS_ROW, [DECK])
    assert deck_pages == stale_after_deck(None, DECK_ROW) == stale_after_deck(DECK_ROW, None)
    assert deck_pages == stale_after_card(None, CARD_ROW, CLASS_OF)
    assert deck_pages == stale_after_card(CARD_ROW, None, CLASS_OF)


def test_what_nobody_sees_makes_nothing_stale() -> None:
    """A draft is on no page: it can be made, changed and deleted unnoticed."""
    draft = {"is_published": False}

    assert set() == stale_after_class(None, CLASS_ROW | draft, [])
    assert set() == stale_after_class(CLASS_ROW | draft, CLASS_ROW | draft | {"name": "x"}, [DECK])
    assert set() == stale_after_deck(DECK_ROW | draft, DECK_ROW | draft | {"class_id": OTHER_CLASS})
    assert set() == stale_after_card(CARD_ROW | draft, None, CLASS_OF)


def test_an_import() -> None:
    """New cards change the numbers around the deck; changed ones only the deck; unchanged ones nothing."""
    assert set() == stale_after_import(CLASS, DECK, created=0, updated=0)
    assert {DECK_PAGE} == stale_after_import(CLASS, DECK, created=0, updated=1)
    everything = {LIST, CLASS_PAGE, DECK_PAGE}
    assert everything == stale_after_import(CLASS, DECK, created=1, updated=0)
    assert everything == stale_after_import(CLASS, DECK, created=0, updated=0, is_frame_changed=True)

"""The queries of administrators cost what they answer, not what there is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sql.test_indexes import CARD, CLASS, DECK, explain, indexes_of

NO_FILTER = {"published": None, "text": None}
DECKS = NO_FILTER | {"class_id": None, "page_size": 51}
FIRST_DECK = {"after_class_id": None, "after_sort_order": None, "after_name": None, "after_id": None}
LATER_DECK = {"after_class_id": CLASS, "after_sort_order": 5, "after_name": "Deck 5", "after_id": DECK}
CARDS = NO_FILTER | {"class_id": None, "deck_id": None, "page_size": 51}
FIRST_CARD = {"after_deck_id": None, "after_sort_order": None, "after_id": None}
LATER_CARD = {"after_deck_id": DECK, "after_sort_order": 5, "after_id": CARD}


@pytest.mark.parametrize("filtered", [{}, {"deck_id": DECK}], ids=["all", "of a deck"])
@pytest.mark.parametrize("page", [FIRST_CARD, LATER_CARD], ids=["first", "later"])
def test_a_page_of_cards_is_read_in_its_order(
    busy_url: str, page: dict[str, Any], filtered: dict[str, Any]
) -> None:
    """The first page and a later one, of one deck or of all: along the index, without a sort."""
    nodes = explain(busy_url, "list_flashcards", CARDS | page | filtered)

    assert {"idx_flashcards_deck_order"} == indexes_of(nodes)
    assert not {"Sort", "Seq Scan"} & {node["Node Type"] for node in nodes}


@pytest.mark.parametrize("filtered", [{}, {"class_id": CLASS}], ids=["all", "of a class"])
@pytest.mark.parametrize("page", [FIRST_DECK, LATER_DECK], ids=["first", "later"])
def test_a_page_of_decks_reads_only_classes_on_it(
    busy_url: str, page: dict[str, Any], filtered: dict[str, Any]
) -> None:
    """Class by class along an index; at most the few decks of each class are sorted."""
    nodes = explain(busy_url, "list_decks", DECKS | page | filtered)

    assert indexes_of(nodes) & {"idx_decks_class_order", "idx_decks_class_published"}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}


def test_the_cards_of_a_class_are_found_by_its_decks(busy_url: str) -> None:
    """Only the cards of the class are looked at, however many others there are."""
    nodes = explain(busy_url, "list_flashcards", CARDS | FIRST_CARD | {"class_id": CLASS})

    assert "Seq Scan" not in {
        node["Node Type"] for node in nodes if node.get("Relation Name") == "flashcards"
    }

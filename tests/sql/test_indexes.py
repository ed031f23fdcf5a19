"""The indexes of the request path serve the queries that they were made for, on enough rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from server.stores.postgres.queries import load_queries
from tests.stores.postgres.databases import ask

USER = "(SELECT id FROM users ORDER BY email LIMIT 1)"
DECK = "(SELECT deck_id FROM study_session_decks ORDER BY session_id, deck_id LIMIT 1)"
CLASS = "(SELECT id FROM classes ORDER BY sort_order LIMIT 1)"
CARD = "(SELECT id FROM flashcards ORDER BY id LIMIT 1)"
FIRST_PAGE = {
    "before_started": "infinity",
    "before_id": "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "page_size": 50,
}
NO_FILTER = dict.fromkeys(load_queries()["list_flashcards"].parameters)

SERVED = [
    ("idx_user_card_progress_user_flashcard", "get_card_progress", {"user_id": USER, "flashcard_id": CARD}),
    ("idx_user_card_progress_mastery", "count_mastery", {"user_id": USER}),
    ("idx_flashcards_deck_published", "list_published_classes", {}),
    ("idx_flashcards_deck_published", "list_class_decks", {"class_id": CLASS}),
    ("idx_flashcards_deck_order", "list_deck_cards", {"deck_ids": DECK}),
    ("idx_flashcards_deck_order", "list_flashcards", NO_FILTER | {"deck_id": DECK, "page_size": 51}),
    ("idx_decks_class_published", "list_published_classes", {}),
    ("idx_decks_class_order", "list_class_decks", {"class_id": CLASS}),
    ("idx_study_sessions_user_deck", "list_deck_sessions", {"user_id": USER, "deck_id": DECK} | FIRST_PAGE),
    ("idx_study_sessions_user_started", "list_sessions", {"user_id": USER} | FIRST_PAGE),
]  # fmt: skip


def explain(url: str, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of the plan of a query; parameters in parentheses are looked up first."""
    given: dict[str, Any] = {}
    for name, value in parameters.items():
        looked_up = isinstance(value, str) and value.startswith("(")
        given[name] = ask(url, f"SELECT {value}::text")[0][0] if looked_up else value
        if name in {"flashcard_ids", "deck_ids"}:
            given[name] = [given[name]]
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {load_queries()[query].sql}", given)
        row = cursor.fetchone()
    assert row is not None
    return list(_nodes(row[0][0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def indexes_of(nodes: list[dict[str, Any]]) -> set[str]:
    """The names of the indexes that a plan uses, conflict arbiters included."""
    names = {node["Index Name"] for node in nodes if "Index Name" in node}
    return names.union(*(node.get("Conflict Arbiter Indexes", []) for node in nodes))


@pytest.mark.parametrize(("index", "query", "parameters"), SERVED, ids=[f"{i}-{q}" for i, q, _ in SERVED])
def test_an_index_serves_its_query(busy_url: str, index: str, query: str, parameters: dict[str, Any]) -> None:
    """The planner takes the index for the query as it stands in sql/queries."""
    assert index in indexes_of(explain(busy_url, query, parameters))


def test_an_index_says_which_queries_it_serves(busy_url: str) -> None:
    """The comment of each of these indexes names the queries that are put to the test here."""
    comments = dict(ask(busy_url, "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class"))
    assert [] == [(index, query) for index, query, _ in SERVED if query not in comments[index]]


@pytest.mark.parametrize("query", ["list_published_classes", "count_mastery"])
def test_counting_reads_no_card(busy_url: str, query: str) -> None:
    """Cards and ratings are counted from an index alone: the texts, 5 kB a card, are not read."""
    nodes = explain(busy_url, query, {"user_id": USER} if query == "count_mastery" else {})
    counted = [node for node in nodes if node.get("Relation Name") in {"flashcards", "user_card_progress"}]
    assert ["Index Only Scan"] == [node["Node Type"] for node in counted]


@pytest.mark.parametrize(("query", "index"), [
    ("list_users_by_recent", "idx_user_stats_recent"),
    ("list_users_by_studied", "idx_user_stats_studied"),
])  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_a_page_of_users_is_read_along_its_index(
    busy_url: str, query: str, index: str, *, first: bool
) -> None:
    """The first page and a later one cost their own size: no sort, no sequential scan."""
    later = {"before_rank": "0", "before_id": "ffffffff-ffff-ffff-ffff-ffffffffffff"}
    if query == "list_users_by_recent":
        later["before_rank"] = "2024-02-29T12:00:00Z"
    parameters = {"before_rank": None, "before_id": None} if first else later
    nodes = explain(busy_url, query, parameters | {"page_size": 50})
    assert index in indexes_of(nodes)
    assert not {"Sort", "Seq Scan"} & {node["Node Type"] for node in nodes}


def test_a_page_of_sessions_is_not_sorted(busy_url: str) -> None:
    """The index of a user's sessions gives them newest first."""
    nodes = explain(busy_url, "list_sessions", {"user_id": USER} | FIRST_PAGE)
    assert "Sort" not in {node["Node Type"] for node in nodes}

"""Among many users, cards and ratings, no query reads a large table from end to end; pages read what they show."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from server.cli.generating import generate
from server.development import EmbeddedServer
from server.domain.study.activity import _LAST_ID, _LONGEST_STREAK
from server.settings import ROOT
from server.stores.postgres.queries import load_queries
from tests.conftest import replace_database, run_sql
from tests.sql.test_indexes import SERVED as SERVED_WHEN_BUSY
from tests.sql.test_indexes import indexes_of
from tests.stores.postgres.databases import ask

QUERIES = load_queries()
LARGE_FROM = 2000
MORE = """
    INSERT INTO bookmarks (user_id, flashcard_id)
    SELECT user_id, flashcard_id FROM user_card_progress WHERE times_seen > 2;
    INSERT INTO refresh_tokens (user_id, family_id, token_hash, expires_at)
    SELECT id, gen_random_uuid(), sha256(id::text::bytea), now() FROM users;
"""
USER = "SELECT user_id::text FROM user_stats ORDER BY total_cards_studied DESC LIMIT 1"
STUDIED_CLASS = f"""
    SELECT d.class_id::text FROM decks AS d JOIN user_deck_stats AS s ON s.deck_id = d.id
     WHERE s.user_id = ({USER})::uuid LIMIT 1
"""  # noqa: S608 - from the line above
# Values for parameters, by name: one row's worth. A query with a new parameter is put to the test by a line here.
LOOKED_UP = {
    "user_id": USER,
    "email": "SELECT email FROM users LIMIT 1",
    "flashcard_id": "SELECT id::text FROM flashcards LIMIT 1",
    "flashcard_ids": "SELECT array_agg(id::text) FROM (SELECT id FROM flashcards LIMIT 3) AS f",
    "deck_id": "SELECT id::text FROM decks LIMIT 1",
    "deck_ids": "SELECT array_agg(id::text) FROM (SELECT id FROM decks LIMIT 3) AS d",
    "class_id": "SELECT class_id::text FROM decks GROUP BY class_id ORDER BY count(*) LIMIT 1",
    "session_id": "SELECT id::text FROM study_sessions LIMIT 1",
    "session_ids": "SELECT array_agg(id::text) FROM (SELECT id FROM study_sessions LIMIT 3) AS s",
    "family_id": "SELECT family_id::text FROM refresh_tokens LIMIT 1",
    "token_hash": "SELECT token_hash FROM refresh_tokens LIMIT 1",
}
FIRST = str(_LAST_ID)
DAYS, ENDED_DAYS, LAPSES_AT = _LONGEST_STREAK.split(" ")
GIVEN: dict[str, Any] = {
    "before_id": FIRST,
    "before_created": "infinity",
    "before_started": "infinity",
    "before_days": int(DAYS),
    "before_ended_days": int(ENDED_DAYS),
    "before_lapses_at": LAPSES_AT,
    "page_size": 51,
    "spelling": "somebody@example.com",
    "subject": "somebody",
    "issuer": "https://issuer.example.com",
    "cards": '[{"question": "Q", "answer": "A"}]',
}
# The rank after which a page begins, by query.
RANKS = {"list_users_by_recent": "2100-01-01 00:00Z", "list_users_by_studied": "1000000"}


@pytest.fixture(scope="module")
def large_url(shared_postgres: EmbeddedServer, database_template: str) -> Iterator[str]:
    """10,000 users, 5,100 cards, 30,000 ratings, in the state in which a service has been running; not written to."""
    name = f"large_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name} TEMPLATE {database_template} STRATEGY file_copy")
    url = replace_database(shared_postgres.url, name)
    generate(url, users=10_000, cards=5100, ratings=30_000, progress=False)
    run_sql(url, MORE)
    run_sql(url, "ANALYZE")
    yield url
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


def explain(
    url: str, query: str, *, run: bool = False, after: Sequence[str] = (), **special: Any
) -> list[dict[str, Any]]:
    """The nodes of a query's plan, with values for its parameters (null where nobody knows one).

    Args: run: whether to run it, for the numbers of rows; after: statements before, undone afterwards.
    """
    values: dict[str, Any] = {}
    for name in QUERIES[query].parameters:
        if name in LOOKED_UP:
            ((values[name],),) = ask(url, LOOKED_UP[name])
        else:
            values[name] = GIVEN.get(name)
    if "before_rank" in values:
        values["before_rank"] = RANKS[query]
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        how = "ANALYZE, TIMING OFF, FORMAT JSON" if run else "FORMAT JSON"
        for statement in after:
            cursor.execute(statement)
        cursor.execute(f"EXPLAIN ({how}) {QUERIES[query].sql}", values | special)
        ((plan,),) = cursor.fetchall()
        connection.rollback()
    return list(_nodes(plan[0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def rows_read(nodes: list[dict[str, Any]], table: str) -> int:
    """How many rows of a table were looked at, those that a filter took out included."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes
        if node.get("Relation Name") == table
    )


@pytest.fixture(scope="module")
def large_tables(large_url: str) -> set[str]:
    """The tables that nobody may read from end to end."""
    rows = ask(large_url, f"SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > {LARGE_FROM}")  # noqa: S608
    return {name for (name,) in rows if not name.startswith("pg_")}


def test_most_tables_are_large_here(large_tables: set[str]) -> None:
    """What the tests below ask for means something for each of these."""
    assert {
        "users", "user_stats", "user_deck_stats", "user_card_progress", "flashcards", "session_cards",
        "study_sessions", "study_session_decks", "bookmarks", "refresh_tokens", "user_active_days",
    } <= large_tables  # fmt: skip


# It writes hundreds of cards at a time; among so few as here, to read them all is the shorter way.
@pytest.mark.parametrize("query", sorted(QUERIES.keys() - {"import_cards"}))
def test_no_query_scans_a_large_table(large_url: str, large_tables: set[str], query: str) -> None:
    """Each finds its rows along an index."""
    scanned = {node["Relation Name"] for node in explain(large_url, query) if node["Node Type"] == "Seq Scan"}
    assert set() == scanned & large_tables


# Their plans are those of functions (tests/sql/test_study_plans.py).
IN_FUNCTIONS = {"claim_idempotency_key", "rate_card", "record_ratings"}
# Each index with each query that its comment names, as they stand on the page, but for those of test_indexes.py.
SERVED = [
    (index, query)
    for comment, index in re.findall(
        r"((?:^-- .+\n)+)CREATE (?:UNIQUE )?INDEX (\w+)",
        (ROOT / "sql" / "schema.sql").read_text(),
        re.MULTILINE,
    )
    for query in re.findall(r"[a-z]+(?:_[a-z]+)+", comment)
    if query in QUERIES.keys() - IN_FUNCTIONS
    and (index, query) not in {(one, other) for one, other, _ in SERVED_WHEN_BUSY}
]


@pytest.mark.parametrize(("index", "query"), SERVED)
def test_a_query_takes_the_index_that_is_said_to_serve_it(large_url: str, index: str, query: str) -> None:
    """Among many rows, or where there are few here, if it may not read all of them."""
    special: dict[str, Any] = (
        {"role": "admin"} if index == "idx_users_admins" and query == "list_accounts" else {}
    )
    plans = (
        explain(large_url, query, after=after, **special) for after in ((), ("SET enable_seqscan = off",))
    )
    assert any(index in indexes_of(plan) for plan in plans)


@pytest.mark.parametrize("query", ["list_users_by_recent", "list_users_by_studied"])
def test_a_page_of_users_reads_its_rows(large_url: str, query: str) -> None:
    """As many rows of users and of figures as the page has, and none of progress."""
    nodes = explain(large_url, query, run=True)
    read = [rows_read(nodes, table) for table in ("user_stats", "users", "user_card_progress")]
    assert [51, 51, 0] == read


ALL_LIVE = """
    UPDATE user_stats SET study_streak_days = 1 + (hashtext(user_id::text) & 63),
           streak_lapses_at = date_trunc('day', now()) + (hashtext(user_id::text) & 15) * interval '1 hour'
                              + interval '1 day'
"""
ALL_ENDED = ALL_LIVE.replace("+ interval '1 day'", "- interval '3 days'")
STATES = {
    "as analyzed": (),
    "never analyzed": (ALL_LIVE, "DELETE FROM pg_statistic WHERE starelid = 'user_stats'::regclass"),
    "analyzed when all had ended": (ALL_ENDED, "ANALYZE user_stats", ALL_LIVE),
    "analyzed when all lived": (ALL_LIVE, "ANALYZE user_stats", ALL_ENDED),
    "analyzed when each had a midnight": (
        ALL_LIVE,
        "UPDATE user_stats SET streak_lapses_at = now() + hashtext(user_id::text) * interval '1 s'",
        "ANALYZE user_stats",
        ALL_LIVE,
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("position", ["first", "among the living", "among the ended"])
def test_a_page_by_streak_reads_a_page_for_each_midnight(large_url: str, state: str, position: str) -> None:
    """The best of each midnight ahead and some lapsed ones, whatever the planner knew when it was last told."""
    before: dict[str, Any] = {
        "first": {},
        "among the living": {"before_days": 40, "before_lapses_at": "2100-01-01 00:00Z"},
        "among the ended": {"before_days": 0, "before_lapses_at": "2000-01-01 00:00Z"},
    }[position]
    nodes = explain(large_url, "list_users_by_streak", run=True, after=STATES[state], **before)
    assert rows_read(nodes, "users") <= 51
    # 40 zones have midnights of their own at the most; each is read along the index, and so are their midnights.
    assert rows_read(nodes, "user_stats") <= 40 * 53
    assert not {"Bitmap Heap Scan", "Seq Scan"} & {
        node["Node Type"] for node in nodes if node.get("Relation Name") == "user_stats"
    }


@pytest.mark.parametrize("query", ["list_user_classes", "list_class_mastery"])
def test_progress_by_class_reads_counters(large_url: str, query: str) -> None:
    """However much the user has studied: no progress row, and a counter for each deck at most."""
    ((studied,),) = ask(large_url, STUDIED_CLASS)
    nodes = explain(
        large_url, query, run=True, **({"class_id": studied} if query == "list_class_mastery" else {})
    )
    assert 0 == rows_read(nodes, "user_card_progress")
    ((decks,),) = ask(large_url, "SELECT count(*) FROM decks")
    assert 0 < rows_read(nodes, "user_deck_stats") <= decks


@pytest.mark.parametrize("what", ["deck_id = {deck}", "flashcard_id = {card} AND deck_id = {deck}"])
def test_progress_on_what_goes_is_found_by_its_deck(large_url: str, what: str) -> None:
    """The deletion of a deck, and the cascade of a card's, look at the progress on what goes."""
    ((deck_id, card_id),) = ask(large_url, "SELECT deck_id::text, id::text FROM flashcards LIMIT 1")
    condition = what.format(deck=f"'{deck_id}'", card=f"'{card_id}'")
    ((plan,),) = ask(large_url, f"EXPLAIN (FORMAT JSON) DELETE FROM user_card_progress WHERE {condition}")  # noqa: S608
    indexes = {node["Index Name"] for node in _nodes(plan[0]["Plan"]) if "Index Name" in node}
    assert {"idx_user_card_progress_deck_flashcard"} == indexes

"""What a rating asks beyond progress is answered along an index, however many reviews and keys there are."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg2
import pytest

from server.development import EmbeddedServer
from tests.conftest import replace_database, run_sql
from tests.sql.older_releases import record_now
from tests.sql.test_indexes import explain, indexes_of
from tests.stores.postgres.databases import ask

UTC = ZoneInfo("UTC")
NOW = datetime.now(UTC)
LARGE = {
    "idempotency_keys", "memory_states", "review_log", "session_cards", "user_active_days", "user_card_progress",
    "user_deck_stats", "user_stats", "users",
}  # fmt: skip
FILL = """
    INSERT INTO users (email) SELECT 'user' || n || '@example.org' FROM generate_series(1, 200) AS n;
    INSERT INTO classes (name) VALUES ('C');
    INSERT INTO decks (class_id, name) SELECT id, 'D' FROM classes;
    INSERT INTO flashcards (deck_id, question, answer) SELECT id, n, n FROM decks, generate_series(1, 50) AS n;
    INSERT INTO review_log (user_id, flashcard_id, confidence_level, rated_at)
    SELECT u.id, f.id, 3, now() FROM generate_series(1, 5), users AS u, flashcards AS f;
    INSERT INTO memory_states
    SELECT u.id, f.id, 1, 5, 'review', NULL, now(), now(), 5 FROM users AS u, flashcards AS f;
    INSERT INTO user_card_progress (
           user_id, flashcard_id, confidence_level, mastery_status, last_seen_at, next_review_at)
    SELECT u.id, f.id, 3, 'learning', now(), now() FROM users AS u, flashcards AS f;
    INSERT INTO idempotency_keys (user_id, key, fingerprint, status, created_at)
    SELECT u.id, n, sha256(''), 200, now() - n * interval '1 minute' FROM users AS u, generate_series(1, 100) AS n;
"""
USER = "(SELECT id FROM users ORDER BY email LIMIT 1)"
CARD = "(SELECT id FROM flashcards ORDER BY id LIMIT 1)"
OWN = {"user_id": USER, "flashcard_ids": CARD}
KEY = {"user_id": USER, "key": "7"}
ANSWER: dict[str, Any] = KEY | {"status": 200, "location": None, "body": b"", "stale": []}


@pytest.fixture(scope="module")
def studied_url(shared_postgres: EmbeddedServer, database_template: str) -> Iterator[str]:
    """50,000 reviews, progress and memories of 10,000 cards, and 20,000 keys; to be read, not written."""
    name = f"studied_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name} TEMPLATE {database_template} STRATEGY file_copy")
    url = replace_database(shared_postgres.url, name)
    run_sql(url, FILL)
    run_sql(url, "ANALYZE")
    yield url
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(("query", "parameters", "indexes"), [
    ("list_reviews", OWN, {"idx_review_log_user_flashcard"}),
    ("keep_idempotent_answer", ANSWER, {"idempotency_keys_pkey"}),
])  # fmt: skip
def test_a_table_is_read_along_its_index(
    studied_url: str, query: str, parameters: dict[str, Any], indexes: set[str]
) -> None:
    """No table is scanned."""
    nodes = explain(studied_url, query, parameters)
    assert indexes == indexes_of(nodes)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}


@pytest.mark.parametrize("count", [1, 2])
def test_a_rating_reads_along_indexes_alone(studied_url: str, count: int) -> None:
    """What a function reads is in no plan, but PostgreSQL counts it."""
    run_sql(studied_url, "UPDATE classes SET is_published = true")
    run_sql(studied_url, "UPDATE decks SET is_published = true")
    run_sql(studied_url, "UPDATE flashcards SET is_published = true")
    ((user_id, card_id),) = ask(studied_url, f"SELECT {USER}::text, {CARD}::text")
    with closing(psycopg2.connect(studied_url)) as connection, connection.cursor() as cursor:
        outcome = record_now(cursor, user_id, [(card_id, 3, NOW)] * count, UTC, key="new")
        cursor.execute("SELECT relname FROM pg_stat_xact_user_tables WHERE seq_scan > 0")
        scanned = {name for (name,) in cursor.fetchall()}
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'i' AND pg_stat_get_xact_numscans(oid) > 0"
        )
        indexes = {name for (name,) in cursor.fetchall()}
        connection.rollback()
    assert "recorded" == outcome["outcome"]
    assert set() == scanned & LARGE
    assert {
        "idempotency_keys_pkey", "idx_idempotency_keys_created", "idx_user_card_progress_user_flashcard",
        "user_active_days_pkey", "user_stats_pkey",
    } <= indexes  # fmt: skip


@pytest.mark.parametrize("table", ["review_log", "memory_states"])
def test_the_deletion_of_a_card_finds_what_hangs_on_it(studied_url: str, table: str) -> None:
    """Each foreign key has an index that begins with it."""
    leading = ask(
        studied_url,
        "SELECT i.indrelid::regclass::text, a.attname FROM pg_index AS i "
        "JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]",
    )
    assert {(table, "user_id"), (table, "flashcard_id")} <= set(leading)

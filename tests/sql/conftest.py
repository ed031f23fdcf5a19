"""A database with enough rows that the planner's choices are those of a busy service."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from server.development import EmbeddedServer
from tests.conftest import replace_database, run_sql
from tests.stores.postgres.databases import ask
from tests.support.waiting import eventually

# Cards lie in the table deck by deck, as an import leaves them, and few of them are unpublished.
FILL = """
    INSERT INTO classes (name, sort_order, is_published)
    SELECT 'Class ' || n, n, n % 10 > 0 FROM generate_series(1, 40) AS n;
    INSERT INTO decks (class_id, name, sort_order, is_published)
    SELECT c.id, 'Deck ' || n, n, n % 10 > 0 FROM classes AS c, generate_series(1, 20) AS n ORDER BY c.id, n;
    INSERT INTO flashcards (deck_id, question, answer, sort_order, is_published)
    SELECT d.id, repeat('question ', 20) || n, repeat('answer ', 40), n, (n + d.sort_order) % 50 > 0
      FROM decks AS d, generate_series(1, 40) AS n ORDER BY d.id, n;
    INSERT INTO users (email) SELECT 'user' || n || '@example.org' FROM generate_series(1, 500) AS n;
    WITH numbered_users AS (SELECT id, row_number() OVER () AS n FROM users),
         numbered_cards AS (SELECT id, row_number() OVER () AS n FROM flashcards)
    INSERT INTO user_card_progress (
           user_id, flashcard_id, confidence_level, mastery_status, last_seen_at, next_review_at)
    SELECT u.id, f.id, 3, (ARRAY['new', 'learning', 'mastered'])[1 + f.n % 3], now(), now()
      FROM numbered_users AS u JOIN numbered_cards AS f ON f.n % 250 = u.n % 250;
    INSERT INTO study_sessions (user_id, started_at)
    SELECT u.id, now() - n * interval '1 hour'
      FROM (SELECT id FROM users ORDER BY email LIMIT 100) AS u, generate_series(1, 200) AS n ORDER BY n;
    WITH numbered_sessions AS (SELECT id, user_id, row_number() OVER () AS n FROM study_sessions),
         numbered_decks AS (SELECT id, row_number() OVER () AS n FROM decks)
    INSERT INTO study_session_decks (session_id, user_id, deck_id)
    SELECT s.id, s.user_id, d.id FROM numbered_sessions AS s JOIN numbered_decks AS d ON d.n % 400 = s.n % 400;
    INSERT INTO bookmarks (user_id, flashcard_id)
    SELECT user_id, flashcard_id FROM user_card_progress WHERE mastery_status = 'new';
"""


# As long as anybody, such as autovacuum, still looks at an older state, VACUUM leaves pages unmarked.
UNMARKED = """
    SELECT count(*) FROM pg_class
     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relallvisible < relpages
"""


def _is_vacuumed(url: str) -> bool:
    run_sql(url, "VACUUM ANALYZE")
    return ask(url, UNMARKED) == [(0,)]


@pytest.fixture(scope="session")
def busy_url(shared_postgres: EmbeddedServer, database_template: str) -> Iterator[str]:
    """800 decks of 40 cards, 500 users of 128 ratings, 20,000 sessions of 100 users; to be read, not written."""
    name = f"busy_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name} TEMPLATE {database_template} STRATEGY file_copy")
    url = replace_database(shared_postgres.url, name)
    run_sql(url, FILL)
    eventually(lambda: _is_vacuumed(url), "every row is visible to everybody")
    yield url
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")

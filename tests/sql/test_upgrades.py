"""A database that people have used already is brought up to date with everything that is in it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli.counters import check_counters
from server.cli.migration_files import MIGRATIONS_FOLDER, REPLACED_FOLDER
from server.cli.migrations import migrate
from server.development import EmbeddedServer
from tests.conftest import replace_database, run_sql
from tests.stores.postgres.databases import ask

STUDIED = """
    INSERT INTO classes (name) VALUES ('C');
    INSERT INTO decks (class_id, name) SELECT id, 'D' || n FROM classes, generate_series(1, 3) AS n;
    INSERT INTO flashcards (deck_id, question, answer)
    SELECT id, 'Q' || n, 'A' FROM decks, generate_series(1, 5) AS n;
    INSERT INTO users (email) SELECT n || '@example.com' FROM generate_series(1, 4) AS n;
    INSERT INTO user_card_progress (
           user_id, flashcard_id, confidence_level, mastery_status, last_seen_at, next_review_at)
    SELECT u.id, f.id, 3, CASE WHEN f.question > 'Q3' THEN 'learning' ELSE 'new' END, now(), now()
      FROM users AS u, flashcards AS f WHERE u.email < '4';
    UPDATE user_stats
       SET study_streak_days = 9, last_active_date = (now() AT TIME ZONE 'UTC')::date,
           streak_lapses_at = ((now() AT TIME ZONE 'UTC')::date + 2)::timestamp AT TIME ZONE 'UTC'
     WHERE user_id IN (SELECT id FROM users WHERE email < '3');
    UPDATE user_stats SET streak_lapses_at = now() - interval '1 day'
     WHERE user_id IN (SELECT id FROM users WHERE email > '3');
"""


@pytest.fixture
def old_url(shared_postgres: EmbeddedServer, tmp_path: Path) -> Iterator[str]:
    """A database as it was before 0004_counters_by_deck.sql, in use."""
    name = f"old_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name}")
    url = replace_database(shared_postgres.url, name)
    for file in sorted((MIGRATIONS_FOLDER / REPLACED_FOLDER).glob("*.sql"))[:3]:
        shutil.copy(file, tmp_path)
    migrate(url, tmp_path)
    run_sql(url, STUDIED)
    yield url
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


def test_progress_finds_its_decks_and_is_counted_by_them(old_url: str) -> None:
    """After the migration every rating lies in the deck of its card, and the new counters are exact."""
    assert "0004_counters_by_deck.sql" in migrate(old_url)
    assert [(9, 3)] == ask(
        old_url, "SELECT count(*), count(DISTINCT deck_id) FROM user_deck_stats WHERE learning_cards = 2"
    )
    assert [(0,)] == ask(
        old_url,
        "SELECT count(*) FROM user_card_progress AS p JOIN flashcards AS f ON f.id = p.flashcard_id"
        " WHERE p.deck_id <> f.deck_id",
    )
    assert [] == check_counters(old_url).examples


def test_streaks_stay_and_those_that_ended_are_none(old_url: str) -> None:
    """Who had a living streak has it still; what the ratings know besides is a day; nothing lapses of nothing."""
    migrate(old_url)
    assert [(0, True, 1), (1, False, 1), (9, False, 2)] == ask(
        old_url,
        "SELECT study_streak_days, streak_lapses_at = '-infinity', count(*)::integer FROM user_stats"
        " GROUP BY 1, 2 ORDER BY 1",
    )
    assert [(1, 1), (2, 9)] == ask(
        old_url,
        "SELECT count(*), days FROM (SELECT count(*) AS days FROM user_active_days GROUP BY user_id) AS u"
        " GROUP BY days ORDER BY days",
    )
    assert [] == check_counters(old_url).examples


def test_a_zone_that_the_server_does_not_know_is_utc(old_url: str) -> None:
    """A profile's zone of another time zone database fails no migration."""
    run_sql(old_url, "UPDATE users SET time_zone = 'Mars/Olympus_Mons'")
    migrate(old_url)
    assert [(3,)] == ask(old_url, "SELECT count(DISTINCT user_id) FROM user_active_days")

"""Kept figures are exact, and a figure that is not is found."""

from __future__ import annotations

import pytest

from server.tools.counters import CounterDrift, CountersUnreadable, check_counters
from server.tools.embedded import free_port
from tests.conftest import run_sql
from tests.stores.databases import ask

RATINGS = """
    INSERT INTO classes (name) VALUES ('C');
    INSERT INTO decks (class_id, name) SELECT id, 'D' FROM classes;
    INSERT INTO flashcards (deck_id, question, answer) SELECT id, 'Q' || n, 'A' FROM decks, generate_series(1, 5) AS n;
    INSERT INTO users (email) VALUES ('ada@example.org'), ('bob@example.org');
    INSERT INTO user_card_progress (
           user_id, flashcard_id, confidence_level, mastery_status, last_seen_at, next_review_at)
    SELECT u.id, f.id, 5, CASE WHEN f.question < 'Q3' THEN 'mastered' ELSE 'learning' END, now(), now()
      FROM users AS u, flashcards AS f WHERE u.email = 'ada@example.org';
"""


def test_triggers_keep_exact_figures(database_url: str) -> None:
    """After ratings that come, change and go with their cards, every figure is what a recount gives."""
    run_sql(database_url, RATINGS)
    run_sql(
        database_url, "UPDATE user_card_progress SET mastery_status = 'new' WHERE mastery_status = 'learning'"
    )
    run_sql(database_url, "DELETE FROM flashcards WHERE question = 'Q5'")
    assert [] == check_counters(database_url)
    figures = ask(database_url, "SELECT new_cards, learning_cards, mastered_cards FROM user_stats ORDER BY 3")
    assert [(0, 0, 0), (2, 0, 2)] == figures


def test_a_wrong_figure_is_found(database_url: str) -> None:
    """A figure that something changed behind the triggers' back is told with what it should be."""
    run_sql(database_url, RATINGS)
    run_sql(database_url, "UPDATE user_stats SET mastered_cards = 7 WHERE mastered_cards = 2")
    user_id = ask(database_url, "SELECT user_id::text FROM user_stats WHERE mastered_cards = 7")[0][0]
    expected = CounterDrift(
        user_id,
        kept={"new": 0, "learning": 3, "mastered": 7},
        counted={"new": 0, "learning": 3, "mastered": 2},
    )
    assert [expected] == check_counters(database_url)


def test_a_database_that_is_away_is_told() -> None:
    """Without a server there is a sentence, and no password in it."""
    with pytest.raises(CountersUnreadable, match="refused") as caught:
        check_counters(f"postgresql://mastery:hunter2@127.0.0.1:{free_port()}/x")
    assert "hunter2" not in str(caught.value)

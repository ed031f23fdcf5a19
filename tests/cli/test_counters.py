"""What is kept of each user is what a recount gives; what is not is found, told and set right."""

from __future__ import annotations

from contextlib import closing
from threading import Thread

import psycopg2
import pytest

from server.cli.counters import CountersReport, check_counters
from server.cli.generating import generate
from server.development import free_port
from server.errors import CommandError
from tests.cli.commands import run_command, run_forked_command
from tests.conftest import run_sql
from tests.stores.postgres.databases import ask
from tests.support.waiting import wait_until

# Counters of three users go wrong, each in another way.
DAMAGE = """
    UPDATE user_stats SET mastered_cards = mastered_cards + 7, total_study_time_seconds = 5
     WHERE user_id = (SELECT user_id FROM user_stats ORDER BY user_id LIMIT 1);
    DELETE FROM user_deck_stats
     WHERE user_id = (SELECT user_id FROM user_deck_stats ORDER BY user_id OFFSET 20 LIMIT 1);
    INSERT INTO user_deck_stats
    SELECT user_id, gen_random_uuid(), 1, 2, 3 FROM user_stats ORDER BY user_id DESC LIMIT 1;
    UPDATE user_stats SET study_streak_days = 99, last_active_date = '2020-02-02'
     WHERE user_id = (SELECT user_id FROM user_stats ORDER BY user_id LIMIT 1);
"""
KEPT = """
    SELECT user_id::text, '', new_cards, learning_cards, mastered_cards, total_study_time_seconds, study_streak_days,
           last_active_date, streak_lapses_at
      FROM user_stats
     UNION ALL
    SELECT user_id::text, deck_id::text, new_cards, learning_cards, mastered_cards, 0, 0, NULL, NULL
      FROM user_deck_stats
     ORDER BY 1, 2
"""


@pytest.fixture
def studied_url(database_url: str) -> str:
    """A database in which thirty users have studied."""
    generate(database_url, users=30, cards=120, ratings=900, progress=False)
    return database_url


def test_what_is_right_is_no_difference(studied_url: str) -> None:
    """After ratings and sessions nothing differs, and every user was looked at."""
    assert CountersReport(users=30) == check_counters(studied_url)


@pytest.mark.parametrize("step", [1, 7, 30])
def test_users_are_looked_at_in_steps(studied_url: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many users are compared at a time, each wrong one is found once."""
    monkeypatch.setattr("server.cli.counters._USERS_A_STEP", step)
    run_sql(studied_url, DAMAGE)
    assert 3 == check_counters(studied_url).wrong_users


def test_each_difference_is_told_in_words(studied_url: str) -> None:
    """A wrong figure, a missing row and a row too many are told apart, each with its user."""
    run_sql(studied_url, DAMAGE)
    report = check_counters(studied_url)
    words = "\n".join(report.examples)
    assert report.differences == len(report.examples)
    assert "mastered_cards is " in words
    assert "total_study_time_seconds is 5 instead of " in words
    assert "study_streak_days is 99 instead of " in words
    assert "last_active_date is 2020-02-02 instead of " in words
    assert ": no counters are kept" in words
    assert ": counters are kept, and there is nothing to count" in words


def test_repair_restores_exactly_what_was(studied_url: str) -> None:
    """All that was damaged reads as before, all else was left alone, and the next look finds nothing."""
    before = ask(studied_url, KEPT)
    run_sql(studied_url, DAMAGE)
    run_sql(
        studied_url,
        "DELETE FROM user_stats WHERE user_id = (SELECT max(user_id::text)::uuid FROM user_stats)",
    )
    assert 3 == check_counters(studied_url, repair=True).wrong_users
    assert before == ask(studied_url, KEPT)
    assert CountersReport(users=30) == check_counters(studied_url)


async def test_repair_waits_for_a_write_under_way(studied_url: str) -> None:
    """A rating that is not committed yet is neither lost nor counted twice by a repair in the middle of it."""
    run_sql(studied_url, "UPDATE user_stats SET mastered_cards = mastered_cards + 1")
    with closing(psycopg2.connect(studied_url)) as rating, rating.cursor() as cursor:
        cursor.execute(
            "INSERT INTO user_card_progress (user_id, flashcard_id, confidence_level, mastery_status, last_seen_at,"
            " next_review_at) SELECT u.user_id, f.id, 5, 'mastered', now(), now()"
            " FROM (SELECT user_id FROM user_stats WHERE total_cards_studied < 100 LIMIT 1) AS u,"
            " flashcards AS f WHERE NOT EXISTS (SELECT FROM user_card_progress AS p"
            " WHERE p.user_id = u.user_id AND p.flashcard_id = f.id) LIMIT 3"
        )
        repair = Thread(target=check_counters, args=(studied_url,), kwargs={"repair": True})
        repair.start()
        await wait_until(lambda: _waits(studied_url), "the repair waits for the row of the user who rates")
        rating.commit()
        repair.join(timeout=30)
    assert 0 == check_counters(studied_url).differences


def test_the_command_tells_and_fails_and_repairs(studied_url: str) -> None:
    """Exit code 1 for counters that differ, with what differs; 0 once they are set right."""
    assert 0 == run_forked_command("check-counters", database_url=studied_url).returncode
    run_sql(studied_url, DAMAGE)
    found = run_command("check-counters", database_url=studied_url)
    assert (1, True) == (found.returncode, " instead of " in found.stdout)
    assert "30 users, 3 of them with wrong counters; check-counters --repair sets them right" in found.stderr
    assert 0 == run_forked_command("check-counters", "--repair", database_url=studied_url).returncode
    assert 0 == run_forked_command("check-counters", database_url=studied_url).returncode


def test_a_database_that_is_away_is_told() -> None:
    """Without a server there is a sentence, and no password in it."""
    with pytest.raises(CommandError, match="refused") as caught:
        check_counters(f"postgresql://mastery:hunter2@127.0.0.1:{free_port()}/x")
    assert "hunter2" not in str(caught.value)


def _waits(url: str) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return ask(url, waiting) != [(0,)]

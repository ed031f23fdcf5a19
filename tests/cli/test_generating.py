"""Made-up data: as much as asked for, the same for the same seed, consistent, and never in somebody's way."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, date, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.__main__ import main
from server.cli.counters import CountersReport, check_counters
from server.cli.generating import GenerateFailed, generate, make_decks, make_students, share_ratings
from server.cli.users import ensure_demo_accounts
from server.development import EmbeddedServer
from server.domain.study.repetition import Review, remember
from tests.cli.commands import run_command
from tests.conftest import replace_database, run_sql
from tests.stores.postgres.databases import ask

DAY = date(2026, 1, 31)
TABLES = (
    "users", "user_stats", "user_deck_stats", "classes", "decks", "flashcards", "user_card_progress",
    "study_sessions", "study_session_decks", "session_cards", "user_active_days", "review_log", "memory_states",
)  # fmt: skip


def count(url: str, table: str) -> int:
    ((rows,),) = ask(url, f"SELECT count(*) FROM {table}")  # noqa: S608 - a name of TABLES
    number: int = rows
    return number


def everything(url: str) -> dict[str, list[Any]]:
    """All rows but for what the database itself adds: moments of insertion and numbers of rows."""
    columns = dict.fromkeys(TABLES, "t") | {"session_cards": "t.session_id, t.flashcard_id, t.rated_at"}
    columns["review_log"] = "to_jsonb(t) - 'id'"
    columns["user_card_progress"] = "to_jsonb(t) - 'changed_at'"
    for table in ("users", "classes", "decks", "flashcards"):
        columns[table] = "to_jsonb(t) - 'created_at' - 'updated_at'"
    queries = {table: f"SELECT {columns[table]} FROM {table} AS t ORDER BY t::text" for table in TABLES}  # noqa: S608 - names
    return {table: ask(url, query) for table, query in queries.items()}


def chance(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - makes stories, guards nothing


def test_there_is_as_much_as_was_asked_for(database_url: str) -> None:
    """Users, cards and ratings are exactly so many, and the counters kept of them are exact."""
    report = generate(database_url, users=40, cards=130, ratings=2000, until=DAY)
    assert (40, 130, 2000) == (report.users, report.cards, report.ratings)
    assert (40, 130, 2000) == tuple(
        count(database_url, table) for table in ("users", "flashcards", "user_card_progress")
    )
    assert report.sessions == count(database_url, "study_sessions") > 0
    assert CountersReport(users=40) == check_counters(database_url)


@pytest.fixture
def second_url(shared_postgres: EmbeddedServer, database_template: str) -> Iterator[str]:
    """Another database of the same kind."""
    name = f"second_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name} TEMPLATE {database_template} STRATEGY file_copy")
    yield replace_database(shared_postgres.url, name)
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


def test_the_same_seed_makes_the_same_rows(
    database_url: str, second_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are equal to their last column, whether they were made in one batch or in many."""
    generate(database_url, users=25, cards=60, ratings=400, seed=5, until=DAY)
    monkeypatch.setattr("server.cli.generating._BATCH_ROWS", 30)
    generate(second_url, users=25, cards=60, ratings=400, seed=5, until=DAY)
    assert everything(database_url) == everything(second_url)


def test_another_seed_makes_another_story() -> None:
    """Students, their cards and their times depend on the seed."""
    stories = [
        list(
            make_students([3, 4], make_decks(10, chance(seed)), until=_end(), seed=seed, random=chance(seed))
        )
        for seed in (1, 1, 2)
    ]
    assert stories[0] == stories[1]
    assert stories[0] != stories[2]


def test_what_is_made_could_have_happened(database_url: str) -> None:
    """Nothing lies in the future, sessions hold what they count, reviews follow the table of the service."""
    generate(database_url, users=40, cards=130, ratings=3000, until=DAY)
    assert [(0,)] == ask(
        database_url, "SELECT count(*) FROM user_card_progress WHERE last_seen_at >= '2026-01-31 00:00Z'"
    )
    assert [(0,)] == ask(
        database_url,
        "SELECT count(*) FROM study_sessions AS s CROSS JOIN LATERAL (SELECT count(*) AS cards,"
        " round(avg(confidence_level), 2) AS average FROM session_cards WHERE session_id = s.id) AS c"
        " WHERE (s.cards_studied, s.average_confidence) IS DISTINCT FROM (c.cards, c.average)",
    )
    assert [(1, "12:00:00"), (2, "12:00:00"), (3, "1 day"), (4, "3 days"), (5, "7 days")] == ask(
        database_url,
        "SELECT DISTINCT confidence_level::integer, (next_review_at - last_seen_at)::text"
        " FROM user_card_progress ORDER BY 1",
    )
    assert [(True,)] == ask(
        database_url,
        "SELECT bool_and(last_active_at = (SELECT max(last_seen_at) FROM user_card_progress AS p"
        " WHERE p.user_id = s.user_id)) FROM user_stats AS s WHERE study_streak_days > 0",
    )


def test_cards_of_classes_set_to_fsrs_are_remembered(database_url: str) -> None:
    """Each rated card of every fourth class has the memory that FSRS makes of its log, and is due when that says."""
    generate(database_url, users=6, cards=2100, ratings=3000, until=DAY)
    assert [("fixed",), ("fsrs",), ("fixed",)] == ask(
        database_url, "SELECT scheduler FROM classes ORDER BY sort_order"
    )
    rows = ask(
        database_url,
        "SELECT p.confidence_level, p.last_seen_at, p.next_review_at, m.*,"
        " (SELECT count(*) FROM review_log AS r WHERE (r.user_id, r.flashcard_id) = (p.user_id, p.flashcard_id))"
        " FROM user_card_progress AS p JOIN decks AS d ON d.id = p.deck_id JOIN classes AS c ON c.id = d.class_id"
        " LEFT JOIN memory_states AS m USING (user_id, flashcard_id) WHERE c.scheduler = 'fsrs'",
    )
    assert len(rows) > 100
    for (
        level,
        seen_at,
        due_at,
        _,
        _,
        stability,
        difficulty,
        state,
        step,
        kept_due_at,
        reviewed_at,
        reviews,
        logged,
    ) in rows:
        made = remember(None, Review(level, seen_at))
        assert (made.stability, made.difficulty, made.phase, made.step) == (
            stability,
            difficulty,
            state,
            step,
        )
        assert made.due_at == kept_due_at == due_at
        assert (seen_at, 1, 1) == (reviewed_at, reviews, logged)
    assert len(rows) == count(database_url, "memory_states")
    assert 3000 == count(database_url, "review_log")


@given(users=st.integers(1, 60), cards=st.integers(1, 60), part=st.floats(0, 1), seed=st.integers(0, 9))
def test_ratings_are_shared_out_exactly(users: int, cards: int, part: float, seed: int) -> None:
    """The shares add up, and nobody has more than there are cards, however full it is."""
    ratings = max(1, int(users * cards * part))
    shares = share_ratings(ratings, users, cards, chance(seed))
    assert (users, ratings) == (len(shares), sum(shares))
    assert 0 <= min(shares) <= max(shares) <= cards


def test_few_study_much_and_many_a_little() -> None:
    """The busiest tenth has several times its share."""
    shares = sorted(share_ratings(100_000, 1000, 10_000, chance(1)), reverse=True)
    assert sum(shares[:100]) > 4 * sum(shares) / 10
    assert shares[-1] > 0


def test_more_ratings_than_possible_are_refused(database_url: str) -> None:
    """A sentence says how many there can be."""
    with pytest.raises(GenerateFailed, match="2 users can rate at most 6 times"):
        generate(database_url, users=2, cards=3, ratings=7)


def test_the_users_of_somebody_are_left_alone(database_url: str) -> None:
    """A database with accounts of its own is refused, and untouched, unless --append; demo accounts don't count."""
    ensure_demo_accounts(database_url)
    generate(database_url, users=5, cards=10, ratings=20, seed=1)
    with pytest.raises(GenerateFailed, match="--append"):
        generate(database_url, users=5, cards=10, ratings=20, seed=2)
    assert 7 == count(database_url, "users")
    generate(database_url, users=5, cards=10, ratings=20, seed=2, append=True)
    assert 12 == count(database_url, "users")


def test_a_seed_can_be_used_once(database_url: str) -> None:
    """The same data again is refused in words, and changes nothing."""
    generate(database_url, users=5, cards=10, ratings=20)
    with pytest.raises(GenerateFailed, match="seed 1 has been used"):
        generate(database_url, users=5, cards=10, ratings=20, append=True)
    assert 20 == count(database_url, "user_card_progress")


def test_a_failure_in_the_middle_leaves_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before a batch that fails is gone with it."""
    monkeypatch.setattr("server.cli.generating._BATCH_ROWS", 10)
    run_sql(database_url, "ALTER TABLE user_card_progress ADD CHECK (times_seen < 13)")
    with pytest.raises(GenerateFailed, match="nothing was generated"):
        generate(database_url, users=20, cards=100, ratings=1500)
    assert [0] * len(TABLES) == [count(database_url, table) for table in TABLES]


def test_the_command(database_url: str) -> None:
    """It tells what it made, without a bar where nobody watches, and a refusal is a sentence and exit code 1."""
    arguments = ["generate", "--users", "3", "--cards", "5", "--ratings", "9", "--until", "2026-01-31"]
    made = run_command(*arguments, database_url=database_url)
    assert (0, True) == (made.returncode, made.stdout.startswith("3 users, 5 cards, 9 cards rated, "))
    assert "generate.finished" in made.stderr
    assert "\r" not in made.stderr
    refused = run_command(*arguments, database_url=database_url)
    assert (1, True) == (refused.returncode, "--append" in refused.stderr)


@pytest.mark.parametrize("wrong", [["--users", "0"], ["--until", "yesterday"], ["--ratings", "many"]])
def test_bad_usage_is_told_at_once(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A number or a day that is none names the option, with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(["generate", *wrong])
    assert 2 == caught.value.code
    assert f"argument {wrong[0]}: {wrong[1]}: a " in capsys.readouterr().err


def _end() -> datetime:
    return datetime(2026, 1, 31, tzinfo=UTC)

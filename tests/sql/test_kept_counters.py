"""The counters by user and deck stay exact through everything that happens to ratings, cards, decks and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from random import Random
from threading import Thread
from typing import Any
from zoneinfo import ZoneInfo

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case

from server.cli.counters import check_counters
from server.cli.generating import generate
from server.stores.postgres.queries import load_queries
from tests.sql.older_releases import record_now
from tests.stores.postgres.databases import ask

QUERIES = load_queries()
STATUS = {1: "new", 2: "new", 3: "learning", 4: "mastered", 5: "mastered"}
# What the two queries answer, counted from the rows themselves.
COUNTED_CLASSES = """
    SELECT c.id, count(f.id), count(p.flashcard_id), count(*) FILTER (WHERE p.mastery_status = 'new'),
           count(*) FILTER (WHERE p.mastery_status = 'learning'), count(*) FILTER (WHERE p.mastery_status = 'mastered')
      FROM classes AS c
      LEFT JOIN decks AS d ON d.class_id = c.id AND d.is_published
      LEFT JOIN flashcards AS f ON f.deck_id = d.id AND f.is_published
      LEFT JOIN user_card_progress AS p ON p.flashcard_id = f.id AND p.user_id = %(user_id)s
     WHERE c.is_published
     GROUP BY c.id ORDER BY c.sort_order, c.name, c.id
"""
COUNTED_MASTERY = """
    SELECT f.deck_id, p.mastery_status, count(*)
      FROM decks AS d
      JOIN flashcards AS f ON f.deck_id = d.id AND f.is_published
      JOIN user_card_progress AS p ON p.flashcard_id = f.id AND p.user_id = %(user_id)s
     WHERE d.class_id = %(class_id)s AND d.is_published
     GROUP BY f.deck_id, p.mastery_status
"""
# Everything that may happen to the course and its students: {x} is somewhere in table x.
HAPPENINGS = (
    "UPDATE flashcards SET is_published = NOT is_published WHERE id = {flashcards}",
    "UPDATE decks SET is_published = NOT is_published WHERE id = {decks}",
    "UPDATE classes SET is_published = NOT is_published WHERE id = {classes}",
    "UPDATE flashcards SET deck_id = {decks} WHERE id = {flashcards}",
    "UPDATE flashcards SET deck_id = {decks} WHERE deck_id = {decks} AND sort_order < 4",
    "UPDATE decks SET class_id = {classes} WHERE id = {decks}",
    "DELETE FROM flashcards WHERE id = {flashcards}",
    "DELETE FROM flashcards WHERE deck_id = {decks} AND sort_order > 40",
    "DELETE FROM user_card_progress WHERE user_id = {users} AND confidence_level = 1",
    "UPDATE user_card_progress SET mastery_status = 'new' WHERE user_id = {users} AND confidence_level = 3",
    "UPDATE user_card_progress SET mastery_status = 'mastered' WHERE confidence_level = 4",
    "INSERT INTO users (email) VALUES (gen_random_uuid() || '@example.com')",
    "INSERT INTO decks (class_id, name, is_published) VALUES ({classes}, 'another deck', true)",
    "INSERT INTO flashcards (deck_id, question, answer, is_published) VALUES ({decks}, 'Q', 'A', true)",
)
RARELY = (
    "DELETE FROM decks WHERE id = {decks}",
    "DELETE FROM classes WHERE id = {classes}",
    "DELETE FROM users WHERE id = {users}",
    "UPDATE flashcards SET deck_id = {decks} WHERE deck_id = {decks}",
)


@pytest.fixture
def studied_url(database_url: str) -> str:
    """Two classes, 22 decks, 1,100 cards, 25 students."""
    generate(database_url, users=25, cards=1100, ratings=3000, progress=False)
    return database_url


@pytest.fixture
def connection(studied_url: str) -> Iterator[Connection]:
    """A connection to it that commits each statement."""
    with closing(psycopg2.connect(studied_url)) as connection:
        connection.autocommit = True
        yield connection


def run(connection: Connection, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def pick(connection: Connection, table: str, random: Random) -> str:
    ids = run(connection, f"SELECT id::text FROM {table} ORDER BY id")  # noqa: S608 - a table of HAPPENINGS
    return f"'{random.choice(ids)[0]}'::uuid" if ids else "NULL::uuid"


def rate(connection: Connection, user_id: str, cards: list[str], levels: list[int]) -> None:
    """A batch of ratings of those of the cards that can be rated, as the service records it."""
    rateable = sorted(
        {row[0] for row in run(connection, QUERIES["find_rateable_cards"].sql, flashcard_ids=cards)}
    )
    now = datetime.now(UTC)
    ratings = [(card, level, now) for card, level in zip(rateable, levels, strict=False)]
    if ratings:
        with connection.cursor() as cursor:
            outcome = record_now(cursor, user_id, ratings, ZoneInfo("UTC"))
        assert outcome["outcome"] in {"recorded", "no_card", "no_user", "unexpected"}


def happen(connection: Connection, random: Random, statements: tuple[str, ...]) -> None:
    statement = random.choice(statements)
    for table in ("flashcards", "decks", "classes", "users"):
        while f"{{{table}}}" in statement:
            statement = statement.replace(f"{{{table}}}", pick(connection, table, random), 1)
    run(connection, statement)


@pytest.mark.parametrize("seed", range(4))
def test_counters_survive_whatever_happens(studied_url: str, connection: Connection, seed: int) -> None:
    """After each of many random changes, what a student and an admin see is what counting the rows gives."""
    random = Random(seed)  # noqa: S311 - chooses what happens, guards nothing
    for step in range(80):
        users = run(connection, "SELECT id::text FROM users ORDER BY id")
        user_id = random.choice(users)[0]
        if random.random() < 0.4:
            cards = [row[0] for row in run(connection, "SELECT id::text FROM flashcards ORDER BY id")]
            batch = random.sample(cards, min(len(cards), random.choice((1, 1, 20))))
            rate(connection, user_id, batch, random.choices(range(1, 6), k=len(batch)))
        else:
            happen(connection, random, RARELY if step % 20 == 19 else HAPPENINGS)
        kept = run(connection, QUERIES["list_user_classes"].sql, user_id=user_id)
        counted = run(connection, COUNTED_CLASSES, user_id=user_id)
        assert counted == [(row[0], *row[2:]) for row in kept]
        for row in counted:
            by_deck = run(connection, COUNTED_MASTERY, user_id=user_id, class_id=row[0])
            kept = run(connection, QUERIES["list_class_mastery"].sql, user_id=user_id, class_id=row[0])
            assert sorted(by_deck) == sorted(kept)
    assert [] == check_counters(studied_url).examples


def test_publishing_writes_no_counter(connection: Connection) -> None:
    """Hiding and showing classes, decks and cards, and moving decks, leave each counter's row as it lies."""
    rows = "SELECT user_id, deck_id, ctid, xmin FROM user_deck_stats ORDER BY 1, 2"
    before = run(connection, rows)
    for published in ("false", "true"):
        for table in ("classes", "decks", "flashcards"):
            run(connection, f"UPDATE {table} SET is_published = {published}")  # noqa: S608 - from the lines above
    run(connection, "UPDATE decks SET class_id = (SELECT id FROM classes ORDER BY id LIMIT 1)")
    assert before == run(connection, rows)


@pytest.mark.parametrize("table", ["decks", "classes"])
def test_what_many_have_studied_goes_at_once(connection: Connection, table: str) -> None:
    """The deletion of a deck, or a class, writes each of its students' figures once: not once a card, or a deck."""
    of_what = "d.id" if table == "decks" else "d.class_id"
    ((found, students),) = run(
        connection,
        f"SELECT {of_what}, count(DISTINCT user_id) FROM user_deck_stats AS s JOIN decks AS d ON d.id = s.deck_id"  # noqa: S608
        " GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
    )
    connection.autocommit = False
    run(connection, f"DELETE FROM {table} WHERE id = %(found)s", found=found)  # noqa: S608 - from above
    written = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 'user_stats'"
    assert [(students,)] == run(connection, written)
    connection.rollback()


def test_a_large_change_leaves_no_scan_behind(connection: Connection) -> None:
    """A connection that has deleted a class goes on to count single ratings along an index."""
    run(connection, "DELETE FROM classes WHERE id = (SELECT id FROM classes ORDER BY id LIMIT 1)")
    ((card_id,),) = run(connection, "SELECT id::text FROM flashcards WHERE is_published LIMIT 1")
    ((user_id,),) = run(connection, "SELECT id::text FROM users LIMIT 1")
    run(
        connection, "SET enable_seqscan = off"
    )  # for the queries of the rating, not for what is planned already
    connection.autocommit = False
    for level in (1, 3, 5):
        rate(connection, user_id, [card_id], [level])
    scans = (
        "SELECT relname, seq_scan FROM pg_stat_xact_user_tables"
        " WHERE relname IN ('user_stats', 'user_deck_stats') ORDER BY 1"
    )
    assert [("user_deck_stats", 0), ("user_stats", 0)] == run(connection, scans)
    connection.rollback()


def test_ratings_and_changes_of_the_course_do_not_deadlock(studied_url: str) -> None:
    """Students rate while decks and cards are hidden, moved and deleted: nobody fails, every counter is exact."""
    users = [row[0] for row in ask(studied_url, "SELECT id::text FROM users ORDER BY id LIMIT 3")]
    cards = [row[0] for row in ask(studied_url, "SELECT id::text FROM flashcards ORDER BY id")]
    failures: list[Exception] = []

    def student(connection: Connection, random: Random) -> None:
        for _ in range(60):
            rate(
                connection, random.choice(users), random.sample(cards, 20), random.choices(range(1, 6), k=20)
            )
            connection.commit()

    def author(connection: Connection, random: Random) -> None:
        for step in range(40):
            rarely = RARELY[1:2] if step == 30 else RARELY[:1]
            happen(connection, random, rarely if step % 8 == 6 else HAPPENINGS[:7])
            connection.commit()

    def work(task: Callable[[Connection, Random], None], seed: int) -> None:
        with closing(psycopg2.connect(studied_url)) as connection:
            try:
                task(connection, Random(seed))  # noqa: S311 - chooses what happens, guards nothing
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
                failures.append(error)

    threads = [Thread(target=work, args=(student, seed)) for seed in (1, 2, 3)]
    threads.append(Thread(target=work, args=(author, 4)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [] == failures
    assert [] == check_counters(studied_url).examples

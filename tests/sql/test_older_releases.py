"""A rolling deployment and a rollback: what older releases write into the present schema loses nobody's streak."""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case

from server.cli.counters import check_counters
from server.cli.migration_files import MIGRATIONS_FOLDER, REPLACED_FOLDER
from server.cli.migrations import migrate
from server.development import EmbeddedServer
from tests.conftest import replace_database, run_sql
from tests.sql.older_releases import (
    Rate,
    rate_in_a_transaction,
    rate_now,
    rate_without_days,
    rate_without_days_in_log,
    rate_without_log,
)
from tests.stores.postgres.databases import ask

COURSE = """
    INSERT INTO classes (name, is_published) VALUES ('C', true);
    INSERT INTO decks (class_id, name, is_published) SELECT id, 'D', true FROM classes;
    INSERT INTO flashcards (deck_id, question, answer, is_published)
    SELECT id, 'Q' || n, 'A', true FROM decks, generate_series(1, 8) AS n;
"""
STREAK = """
    SELECT study_streak_days, (SELECT count(*) FROM user_active_days AS a WHERE a.user_id = s.user_id)
      FROM user_stats AS s JOIN users AS u ON u.id = s.user_id WHERE u.email = %s
"""
BERLIN = ZoneInfo("Europe/Berlin")
# The clocks change in the second night. The last day is still Monday in Berlin and Tuesday at the other end.
NOON = datetime(2026, 3, 27, 11, 30, tzinfo=UTC)
ELSEWHERE = ZoneInfo("Pacific/Kiritimati")


def study(
    connection: Connection, email: str, releases: Sequence[Rate], zones: Sequence[ZoneInfo]
) -> tuple[int, int]:
    """A user who rates a card a day, each with another release: the streak, and how many days are known."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO users (email, time_zone) VALUES (%s, 'Europe/Berlin') RETURNING id::text", (email,)
        )
        ((user_id,),) = cursor.fetchall()
        cursor.execute("SELECT id::text FROM flashcards ORDER BY question")
        cards = [row[0] for row in cursor.fetchall()]
        connection.commit()
        for number, (rate, zone) in enumerate(zip(releases, zones, strict=True)):
            rate(cursor, user_id, cards[number], NOON + timedelta(days=number), zone)
            rate(cursor, user_id, cards[number], NOON + timedelta(days=number, minutes=5), zone)
            connection.commit()
        cursor.execute(STREAK, (email,))
        ((streak, days),) = cursor.fetchall()
        connection.commit()
        return streak, days


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to a database of the present schema with a course in it."""
    run_sql(database_url, COURSE)
    with closing(psycopg2.connect(database_url)) as connection:
        yield connection


@pytest.mark.parametrize("zone", [BERLIN, ELSEWHERE], ids=str)
def test_deploy_13_releases_that_take_turns_keep_a_streak(
    connection: Connection, database_url: str, zone: ZoneInfo
) -> None:
    """Whichever release records which of three days, the streak is three, and a recount agrees."""
    known = (rate_now, rate_in_a_transaction, rate_without_days_in_log, rate_without_days)
    for releases in itertools.product(known, repeat=3):
        email = f"{'-'.join(str(known.index(rate)) for rate in releases)}@example.com"
        assert (3, 3) == study(connection, email, releases, [zone] * 3), email
    assert [] == check_counters(database_url).examples


def test_deploy_13_a_traveller_is_counted_as_one_release_would(
    connection: Connection, database_url: str
) -> None:
    """Where the user's day changes with the zone, an older release's day is the one that it has shown."""
    zones = [BERLIN, BERLIN, ELSEWHERE, ELSEWHERE]
    alone = study(connection, "alone@example.com", [rate_now] * 4, zones)
    mixed = [rate_now, rate_without_days, rate_without_days, rate_now]
    assert alone == study(connection, "mixed@example.com", mixed, zones)
    assert [] == check_counters(database_url).examples


@pytest.mark.parametrize("releases", list(itertools.product((rate_now, rate_without_log), repeat=3)))
def test_deploy_13_what_is_missing_in_the_log_is_repaired(
    connection: Connection, database_url: str, releases: Sequence[Rate]
) -> None:
    """A release that has no log leaves its ratings in the progress alone: check-counters makes days of them, once."""
    study(connection, "a@example.com", releases, [BERLIN] * 3)
    report = check_counters(database_url, repair=True)
    assert (rate_without_log in releases) == any("logged_cards is " in example for example in report.examples)
    assert [(3,)] == ask(database_url, "SELECT study_streak_days FROM user_stats")
    assert [(3, 3)] == ask(database_url, "SELECT count(DISTINCT day), count(*) FROM user_active_days")
    assert [] == check_counters(database_url).examples


def test_deploy_13_a_repair_finds_the_days_in_the_log(connection: Connection, database_url: str) -> None:
    """Days that are gone from user_active_days are those of the log again, in the zone that the user was in."""
    assert (4, 4) == study(connection, "a@example.com", [rate_now] * 4, [ELSEWHERE] * 4)
    days = ask(database_url, "SELECT * FROM user_active_days ORDER BY day")
    run_sql(database_url, "DELETE FROM user_active_days")
    run_sql(database_url, "UPDATE user_stats SET study_streak_days = 0, streak_lapses_at = '-infinity'")
    (example,) = check_counters(database_url, repair=True).examples
    assert "study_streak_days is 0 instead of 4" in example
    assert "active_days is 0 instead of 4" in example
    assert days == ask(database_url, "SELECT * FROM user_active_days ORDER BY day")
    assert [(4,)] == ask(database_url, "SELECT study_streak_days FROM user_stats")
    assert [] == check_counters(database_url).examples


def test_deploy_13_a_repair_takes_no_streak_away(connection: Connection, database_url: str) -> None:
    """What an older release counted right stays, also where the days of its ratings were never noted."""
    run_sql(database_url, "ALTER TABLE review_log DISABLE TRIGGER reviews_have_days")
    assert (4, 0) == study(connection, "a@example.com", [rate_without_days] * 4, [BERLIN] * 4)
    check_counters(database_url, repair=True)
    assert [(4,)] == ask(database_url, "SELECT study_streak_days FROM user_stats")
    assert [] == check_counters(database_url).examples


@pytest.fixture
def earlier_url(shared_postgres: EmbeddedServer, tmp_path: Path) -> Iterator[str]:
    """A database of the schema before 0012, with the course in it."""
    name = f"earlier_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name}")
    url = replace_database(shared_postgres.url, name)
    for file in sorted((MIGRATIONS_FOLDER / REPLACED_FOLDER).glob("*.sql"))[:11]:
        shutil.copy(file, tmp_path)
    migrate(url, tmp_path)
    run_sql(url, COURSE)
    yield url
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


def test_deploy_13_streaks_that_were_lost_come_back(earlier_url: str) -> None:
    """What two releases side by side did to a streak before 0012 is mended by the backfill, from log and progress."""
    older = (rate_without_days_in_log, rate_without_days, rate_without_log)
    before = []
    with closing(psycopg2.connect(earlier_url)) as connection:
        for releases in itertools.product(older, repeat=3):
            email = f"{'-'.join(str(older.index(rate)) for rate in releases)}@example.com"
            before.append(study(connection, email, releases, [BERLIN] * 3)[0])
    assert min(before) < 3, "streaks are lost there"
    migrate(earlier_url)
    assert [(3, len(before))] == ask(
        earlier_url, "SELECT study_streak_days, count(*) FROM user_stats GROUP BY study_streak_days"
    )
    assert [(3 * len(before),)] == ask(earlier_url, "SELECT count(*) FROM user_active_days")
    assert [] == check_counters(earlier_url).examples

"""The two functions that record ratings: one rating means the same to both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver names its class in lower case

from server.stores.postgres.queries import load_queries

QUERIES = load_queries()
NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
COURSE = """
    WITH c AS (INSERT INTO classes (name, is_published) VALUES ('C', true) RETURNING id),
         d AS (INSERT INTO decks (class_id, name, is_published) SELECT id, 'D', true FROM c RETURNING id)
    INSERT INTO flashcards (deck_id, question, answer, is_published)
    SELECT id, n, n, n < 4 FROM d, generate_series(1, 4) AS n
"""
STUDENTS = """
    INSERT INTO users (email) VALUES ('a@example.com'), ('b@example.com');
    INSERT INTO study_sessions (user_id, ended_at, cards_studied, duration_seconds)
    SELECT id, ended_at, figure, figure
      FROM users, (VALUES (NULL::timestamptz, NULL::integer), (now(), 0)) AS s (ended_at, figure);
    INSERT INTO user_card_progress (
           user_id, flashcard_id, confidence_level, mastery_status, last_seen_at, next_review_at)
    SELECT u.id, f.id, 4, 'mastered', now(), now() FROM users AS u, flashcards AS f WHERE f.question = '4'
"""
STATE = """
    SELECT (SELECT json_agg(json_build_array(f.question, p.confidence_level, p.mastery_status, p.times_seen,
                                             p.last_seen_at, p.next_review_at, p.deck_id) ORDER BY f.question)
              FROM user_card_progress AS p JOIN flashcards AS f ON f.id = p.flashcard_id WHERE p.user_id = u.id),
           (SELECT json_agg(json_build_array(f.question, l.confidence_level, l.response_time_ms, l.rated_at, l.day,
                                             l.lapses_at) ORDER BY l.id)
              FROM review_log AS l JOIN flashcards AS f ON f.id = l.flashcard_id WHERE l.user_id = u.id),
           (SELECT json_agg(json_build_array(c.flashcard_id, c.confidence_level, c.response_time_ms, c.rated_at)
                            ORDER BY c.id)
              FROM session_cards AS c JOIN study_sessions AS s ON s.id = c.session_id WHERE s.user_id = u.id),
           (SELECT json_agg(json_build_array(a.day, a.first_at, a.lapses_at) ORDER BY a.day)
              FROM user_active_days AS a WHERE a.user_id = u.id),
           (SELECT json_agg(json_build_array(d.new_cards, d.learning_cards, d.mastered_cards))
              FROM user_deck_stats AS d WHERE d.user_id = u.id),
           (SELECT json_agg(json_build_array(k.key, k.status, convert_from(k.body, 'UTF8'), k.stale) ORDER BY k.key)
              FROM idempotency_keys AS k WHERE k.user_id = u.id),
           s.new_cards, s.learning_cards, s.mastered_cards, s.study_streak_days, s.streak_lapses_at, s.last_active_date,
           s.last_active_at
      FROM users AS u JOIN user_stats AS s ON s.user_id = u.id
     WHERE u.id = %s
"""


class Draw(NamedTuple):
    """One rating, and what its sender has assumed."""

    card: str
    class_id: str
    level: int
    response_time_ms: int | None
    session: int | None  # the user's running one, the one that has ended, or one that there is not
    rated_at: datetime | None
    now: datetime
    zone: str | None
    key: str | None
    fingerprint: bytes


def draw(random: Random, cards: Sequence[str], class_id: str) -> Draw:
    """A rating that is mostly as it should be."""
    now = NOW + timedelta(hours=random.randrange(60))
    session = random.choice([None] * 6 + [0, 0, 1, 2])
    # Of two faults, such as a session that has ended and another day, each function may find another one first.
    at = now - timedelta(hours=random.randrange(90))
    zone = random.choice([None, "UTC", "UTC", "UTC", "Europe/Berlin"]) if session is None else "UTC"
    return Draw(
        random.choice([*cards, cards[0]]),
        random.choice([class_id] * 9 + [cards[0]]),
        random.randint(1, 5),
        random.choice([None, 1200]),
        session,
        at if session else random.choice([None, None, at]),
        now,
        zone,
        random.choice([None, None, str(random.randrange(6))]),
        bytes([random.randrange(2)] * 32),
    )


def by_one(cursor: Cursor, user_id: str, sessions: Sequence[str], drawn: Draw) -> tuple[Any, ...]:
    """What comes of it by rate_card: the outcome, the counts, what is stale, and the answer."""
    given = common(user_id, drawn)
    at = day_of(drawn)
    cursor.execute(
        QUERIES["rate_card"].sql,
        given
        | {
            "flashcard_id": drawn.card,
            "class_id": drawn.class_id,
            "confidence_level": drawn.level,
            "mastery_status": mastery(drawn.level),
            "review_seconds": 3600 * drawn.level,
            "response_time_ms": drawn.response_time_ms,
            "session_id": None if drawn.session is None else sessions[drawn.session],
            "rated_at": drawn.rated_at,
            "day": at.date(),
            "lapses_at": at + timedelta(days=2),
        },
    )
    ((text,),) = cursor.fetchall()
    outcome, detail, body = text.split("\n")
    if outcome == "recorded":
        numbers = [int(number) for number in detail.split()[1:]]
        return outcome, [number for number in numbers if number], [], body
    return outcome, [], detail.split(), body


def by_batch(cursor: Cursor, user_id: str, sessions: Sequence[str], drawn: Draw) -> tuple[Any, ...]:
    """The same by record_ratings."""
    given = common(user_id, drawn)
    at = day_of(drawn)
    session = None if drawn.session is None else sessions[drawn.session]
    cursor.execute(
        QUERIES["record_ratings"].sql,
        given
        | {
            "is_batch": False,
            "flashcard_ids": [drawn.card],
            "confidence_levels": [drawn.level],
            "mastery_statuses": [mastery(drawn.level)],
            "review_seconds": [3600 * drawn.level],
            "response_times_ms": [drawn.response_time_ms],
            "session_ids": [session],
            "rated_ats": [drawn.rated_at],
            "days": [at.date()],
            "lapses_ats": [at + timedelta(days=2)],
            "card_ids": [drawn.card],
            "class_ids": [drawn.class_id],
            "own_sessions": [] if session is None else [session],
            "memories": None,
        },
    )
    ((outcome, _, _, body, stale, counts, _),) = cursor.fetchall()
    answer = "" if body is None else bytes(body).decode()
    return outcome, [count["cards"] for count in counts or ()], stale or [], answer


def common(user_id: str, drawn: Draw) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "key": drawn.key,
        "fingerprint": None if drawn.key is None else drawn.fingerprint,
        "stale": ["o:counts", "o:cards"],
        "counts_wanted": True,
        "zone": drawn.zone,
        "now": drawn.now,
        "now_until": None if drawn.rated_at else day_of(drawn) + timedelta(days=1),
    }


def day_of(drawn: Draw) -> datetime:
    return (drawn.rated_at or drawn.now).replace(hour=0)


def mastery(level: int) -> str:
    return "mastered" if level > 3 else "learning" if level == 3 else "new"


@pytest.mark.parametrize("seed", range(3))
def test_both_functions_record_the_same(database_url: str, seed: int) -> None:
    """After each of many random ratings of two students: the same outcome, the same answer and the same rows."""
    random = Random(seed)  # noqa: S311 - draws ratings, guards nothing
    found = set()
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(COURSE + ";" + STUDENTS)
        cursor.execute("SELECT id::text FROM users ORDER BY email")
        one, other = [user for (user,) in cursor.fetchall()]
        cursor.execute("SELECT id::text FROM flashcards ORDER BY question")
        cards = [card for (card,) in cursor.fetchall()]
        cursor.execute("SELECT id::text FROM classes")
        ((class_id,),) = cursor.fetchall()
        sessions = {}
        for user in (one, other):
            cursor.execute(
                "SELECT id::text FROM study_sessions WHERE user_id = %s ORDER BY ended_at NULLS FIRST",
                (user,),
            )
            sessions[user] = [*(session for (session,) in cursor.fetchall()), cards[0]]
        for _ in range(60):
            if random.random() < 0.1:
                cursor.execute("UPDATE flashcards SET is_published = NOT is_published WHERE question = '4'")
            drawn = draw(random, cards, class_id)
            alone = by_one(cursor, one, sessions[one], drawn)
            assert by_batch(cursor, other, sessions[other], drawn) == alone
            states = []
            for user in (one, other):
                cursor.execute(STATE, (user,))
                states.append(cursor.fetchall())
            assert states[0] == states[1]
            found.add(alone[0])
    assert {
        "recorded",
        "replayed",
        "unexpected",
        "key_reused",
        "no_card",
        "no_session",
        "session_ended",
    } == found

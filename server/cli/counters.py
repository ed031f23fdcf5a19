"""`python -m server check-counters`: what the database keeps about each user, compared with a full recount."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from tqdm import tqdm

from server.cli.database import connected
from server.stores.postgres.queries import load_queries

log = structlog.get_logger(__name__)

_USERS_A_STEP = 1000
_MOST_EXAMPLES = 20
_COUNTERS = (
    "new_cards", "learning_cards", "mastered_cards", "total_study_time_seconds", "study_streak_days",
    "last_active_date", "streak_lapses_at", "active_days", "logged_cards",
)  # fmt: skip
# Stands for all decks in the place of one.
_WHOLE = UUID(int=0)

_NEXT_BOUND = """
SELECT id::text FROM users WHERE id > %(after)s::uuid ORDER BY id OFFSET %(users)s - 1 LIMIT 1
"""
# What is kept and what there is to count, for users in a range of ids: a row for the user, and one for each deck. The
# streak is that of the last run of active days (keep_streaks in sql/schema.sql says what a run is); a day that only the
# log of reviews has is one of them. The log in turn has the newest rating of each card.
_COMPARE = """
WITH rated AS MATERIALIZED (
    SELECT user_id, deck_id,
           count(*) FILTER (WHERE mastery_status = 'new') AS new_cards,
           count(*) FILTER (WHERE mastery_status = 'learning') AS learning_cards,
           count(*) FILTER (WHERE mastery_status = 'mastered') AS mastered_cards,
           count(*) AS cards,
           count(*) FILTER (WHERE EXISTS (
               SELECT FROM review_log AS r WHERE r.user_id = p.user_id AND r.flashcard_id = p.flashcard_id
                                             AND r.rated_at = p.last_seen_at)) AS logged_cards
      FROM user_card_progress AS p
     WHERE user_id > %(after)s::uuid AND user_id <= %(bound)s::uuid
     GROUP BY user_id, deck_id
), days AS MATERIALIZED (
    SELECT user_id, day, min(first_at) AS first_at, max(lapses_at) AS lapses_at, bool_or(is_noted) AS is_noted
      FROM (SELECT user_id, day, first_at, lapses_at, true AS is_noted
              FROM user_active_days
             WHERE user_id > %(after)s::uuid AND user_id <= %(bound)s::uuid
             UNION ALL
            SELECT user_id, day, first_at, lapses_at, false
              FROM find_missing_active_days(%(after)s::uuid, %(bound)s::uuid)) AS known
     GROUP BY user_id, day
), streaks AS MATERIALIZED (
    SELECT user_id, count(*) FILTER (WHERE day >= began) AS days, max(day) AS last_active_date,
           max(lapses_at) AS lapses_at, count(*) AS active_days, count(*) FILTER (WHERE is_noted) AS noted_days
      FROM (SELECT *, max(day) FILTER (WHERE is_first) OVER (PARTITION BY user_id) AS began
              FROM (SELECT *, coalesce(first_at >= max(lapses_at) OVER (
                           PARTITION BY user_id ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                           ), true) AS is_first
                      FROM days) AS firsts) AS runs
     GROUP BY user_id
), counted AS (
    SELECT u.id AS user_id, %(whole)s::uuid AS deck_id, coalesce(sum(r.new_cards), 0)::bigint AS new_cards,
           coalesce(sum(r.learning_cards), 0)::bigint AS learning_cards,
           coalesce(sum(r.mastered_cards), 0)::bigint AS mastered_cards,
           (SELECT coalesce(sum(t.duration_seconds), 0) FROM study_sessions AS t WHERE t.user_id = u.id)
               AS total_study_time_seconds,
           coalesce(min(k.days), 0)::integer AS study_streak_days, min(k.last_active_date)::text AS last_active_date,
           coalesce(min(k.lapses_at), '-infinity')::text AS streak_lapses_at,
           coalesce(min(k.active_days), 0) AS active_days, coalesce(sum(r.cards), 0)::bigint AS logged_cards
      FROM users AS u
      LEFT JOIN rated AS r ON r.user_id = u.id
      LEFT JOIN streaks AS k ON k.user_id = u.id
     WHERE u.id > %(after)s::uuid AND u.id <= %(bound)s::uuid
     GROUP BY u.id
     UNION ALL
    SELECT user_id, deck_id, new_cards, learning_cards, mastered_cards, 0, 0, NULL, NULL, 0, 0 FROM rated
), kept AS (
    SELECT s.user_id, %(whole)s::uuid AS deck_id, s.new_cards::bigint, s.learning_cards::bigint,
           s.mastered_cards::bigint, s.total_study_time_seconds, s.study_streak_days, s.last_active_date::text,
           s.streak_lapses_at::text, coalesce(k.noted_days, 0) AS active_days,
           (SELECT coalesce(sum(r.logged_cards), 0) FROM rated AS r WHERE r.user_id = s.user_id)::bigint
               AS logged_cards
      FROM user_stats AS s
      LEFT JOIN streaks AS k ON k.user_id = s.user_id
     WHERE s.user_id > %(after)s::uuid AND s.user_id <= %(bound)s::uuid
     UNION ALL
    SELECT user_id, deck_id, new_cards, learning_cards, mastered_cards, 0, 0, NULL, NULL, 0, 0
      FROM user_deck_stats
     WHERE user_id > %(after)s::uuid AND user_id <= %(bound)s::uuid
)
SELECT user_id::text, deck_id::text,
       k.new_cards, k.learning_cards, k.mastered_cards, k.total_study_time_seconds, k.study_streak_days,
       k.last_active_date, k.streak_lapses_at, k.active_days, k.logged_cards,
       c.new_cards, c.learning_cards, c.mastered_cards, c.total_study_time_seconds, c.study_streak_days,
       c.last_active_date, c.streak_lapses_at, c.active_days, c.logged_cards
  FROM kept AS k
  FULL JOIN counted AS c USING (user_id, deck_id)
 WHERE (k.new_cards, k.learning_cards, k.mastered_cards, k.total_study_time_seconds, k.study_streak_days,
        k.last_active_date, k.streak_lapses_at, k.active_days, k.logged_cards)
       IS DISTINCT FROM (c.new_cards, c.learning_cards, c.mastered_cards, c.total_study_time_seconds,
                         c.study_streak_days, c.last_active_date, c.streak_lapses_at, c.active_days, c.logged_cards)
 ORDER BY user_id, deck_id
"""
# Everything that changes a user's counters takes this row first: while we hold it, a recount of the user is exact, and
# changes that are under way but not counted yet are added by their triggers afterwards.
_LOCK = "SELECT FROM user_stats WHERE user_id = %(user_id)s::uuid FOR NO KEY UPDATE"
_ADD_MISSING = """
INSERT INTO user_stats (user_id) SELECT id FROM users WHERE id = %(user_id)s::uuid ON CONFLICT DO NOTHING
"""
_REPAIR = (
    "DELETE FROM user_deck_stats WHERE user_id = %(user_id)s::uuid",
    """
    INSERT INTO user_deck_stats (user_id, deck_id, new_cards, learning_cards, mastered_cards)
    SELECT user_id, deck_id,
           count(*) FILTER (WHERE mastery_status = 'new'),
           count(*) FILTER (WHERE mastery_status = 'learning'),
           count(*) FILTER (WHERE mastery_status = 'mastered')
      FROM user_card_progress
     WHERE user_id = %(user_id)s::uuid
     GROUP BY user_id, deck_id
    """,
    """
    UPDATE user_stats
       SET new_cards = %(new)s, learning_cards = %(learning)s, mastered_cards = %(mastered)s,
           total_study_time_seconds =
               (SELECT coalesce(sum(duration_seconds), 0) FROM study_sessions WHERE user_id = %(user_id)s::uuid),
           study_streak_days = 0, streak_lapses_at = '-infinity', last_active_date = NULL
     WHERE user_id = %(user_id)s::uuid
    """,
    # The newest rating of each card that another release has not logged; if its day is not known, the trigger notes it.
    """
    INSERT INTO review_log (user_id, flashcard_id, confidence_level, rated_at)
    SELECT user_id, flashcard_id, confidence_level, last_seen_at
      FROM user_card_progress AS p
     WHERE user_id = %(user_id)s::uuid
       AND NOT EXISTS (SELECT FROM review_log AS r WHERE r.user_id = p.user_id AND r.flashcard_id = p.flashcard_id
                                                     AND r.rated_at = p.last_seen_at)
    """,
    "SET CONSTRAINTS reviews_have_days IMMEDIATE",
    """
    INSERT INTO user_active_days AS a (user_id, day, first_at, lapses_at)
    SELECT user_id, day, first_at, lapses_at FROM find_missing_active_days(%(before)s::uuid, %(user_id)s::uuid)
        ON CONFLICT (user_id, day) DO UPDATE
       SET first_at = least(a.first_at, excluded.first_at), lapses_at = greatest(a.lapses_at, excluded.lapses_at)
    """,
    # For those who have studied, the trigger makes the streak of their days.
    "UPDATE user_active_days SET day = day WHERE user_id = %(user_id)s::uuid",
)


@dataclass(slots=True)
class CountersReport:
    """What a comparison found: users looked at, those with differences, the differences, the first in words."""

    users: int = 0
    wrong_users: int = 0
    differences: int = 0
    examples: list[str] = field(default_factory=list)


def check_counters(url: str, *, repair: bool = False, progress: bool | None = None) -> CountersReport:
    """Compare every user's kept counters with a recount, in one snapshot: writes during the check are no differences.

    Args:
        url: the database, migrated.
        repair: whether to set the counters that differ, user by user, each in a transaction that the user's own
            writes wait for. The report has what was wrong.
        progress: whether to show a progress bar; by default, if standard error is a terminal.

    Raises:
        CommandError: the database can't be asked.
    """
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    report = CountersReport()
    failed = "the counters were not checked to the end"
    count_mastery = load_queries()["count_mastery"].sql
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(connected(url, failed=failed))
        writer = stack.enter_context(connected(url, failed=failed)) if repair else None
        reader.set_session(isolation_level="REPEATABLE READ", readonly=True)
        cursor = stack.enter_context(reader.cursor())
        bar = stack.enter_context(tqdm(unit=" users", disable=hidden, leave=False))
        cursor.execute("SELECT count(*) FROM users")
        ((report.users,),) = cursor.fetchall()
        bar.reset(report.users)
        for after, bound in _ranges(cursor):
            cursor.execute(_COMPARE, {"after": after, "bound": bound, "whole": str(_WHOLE)})
            wrong = _note(report, cursor.fetchall())
            if writer is not None:
                for user_id in wrong:
                    _repair(writer, user_id, count_mastery)
            bar.update(min(_USERS_A_STEP, report.users - bar.n))
    log.info(
        "counters.checked",
        users=report.users,
        wrong_users=report.wrong_users,
        differences=report.differences,
        repaired=repair,
    )
    return report


def _ranges(cursor: Cursor) -> Iterator[tuple[str, str]]:
    """Bounds between which there are so many users: above the first, up to the second."""
    after = str(_WHOLE)
    while True:
        cursor.execute(_NEXT_BOUND, {"after": after, "users": _USERS_A_STEP})
        found = cursor.fetchone()
        if found is None:
            yield after, str(UUID(int=2**128 - 1))
            return
        yield after, found[0]
        after = found[0]


def _note(report: CountersReport, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Count the differences, and give the users who have some."""
    users = list(dict.fromkeys(row[0] for row in rows))
    report.wrong_users += len(users)
    report.differences += len(rows)
    for user_id, deck_id, *figures in rows[: _MOST_EXAMPLES - len(report.examples)]:
        where = f"user {user_id}" if deck_id == str(_WHOLE) else f"user {user_id}, deck {deck_id}"
        report.examples.append(
            f"{where}: {_difference(figures[: len(_COUNTERS)], figures[len(_COUNTERS) :])}"
        )
    return users


def _difference(kept: Sequence[int | str | None], counted: Sequence[int | str | None]) -> str:
    if kept[0] is None:
        return "no counters are kept"
    if counted[0] is None:
        return "counters are kept, and there is nothing to count"
    return ", ".join(
        f"{name} is {is_} instead of {should_be}"
        for name, is_, should_be in zip(_COUNTERS, kept, counted, strict=True)
        if is_ != should_be
    )


def _repair(writer: Connection, user_id: str, count_mastery: str) -> None:
    before = UUID(int=max(0, UUID(user_id).int - 1))
    parameters: dict[str, Any] = {
        "user_id": user_id,
        "before": str(before),
        "new": 0,
        "learning": 0,
        "mastered": 0,
    }
    with writer, writer.cursor() as cursor:
        cursor.execute(_ADD_MISSING, parameters)
        cursor.execute(_LOCK, parameters)
        # Nobody changes this user's rows now: what the statements see, they all see.
        cursor.execute(count_mastery, parameters)
        parameters |= dict(cursor.fetchall())
        for statement in _REPAIR:
            cursor.execute(statement, parameters)

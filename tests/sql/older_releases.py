"""What older releases did to record a rating: their statements as they were (older_queries/), and their arithmetic.

A release may run beside the present one, and alone after a rollback: what it writes then has to be right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver names its class in lower case

from server.domain.study.activity import active_day
from server.domain.study.repetition import mastery_of, review_after
from server.stores.postgres.queries import load_queries

OLDER = load_queries(Path(__file__).with_name("older_queries"))
# Those of the release before 0021, where a rating was a transaction of several statements.
REPLACED = load_queries(Path(__file__).with_name("replaced_queries"))
PRESENT = load_queries()

# Records one rating of a card by a user, at a moment, where a time zone is.
Rate = Callable[[Cursor, str, str, datetime, ZoneInfo], None]


def rate_now(cursor: Cursor, user_id: str, card_id: str, at: datetime, zone: ZoneInfo) -> None:
    """The present release: one statement."""
    record_now(cursor, user_id, [(card_id, 3, at)], zone)


def rate_in_a_transaction(cursor: Cursor, user_id: str, card_id: str, at: datetime, zone: ZoneInfo) -> None:
    """Before 0021: the log has the day, and the days of studying are written, a statement each."""
    day = active_day(at, zone)
    _run(cursor, PRESENT["lock_user_stats"].sql, user_id=user_id)
    _run(
        cursor,
        REPLACED["add_reviews"].sql,
        days=[day.day],
        lapses_ats=[day.lapses_at],
        **_review(user_id, card_id, at),
    )
    _record_rating(cursor, user_id, card_id, at)
    _record_day(cursor, user_id, at, zone)


def rate_without_days_in_log(
    cursor: Cursor, user_id: str, card_id: str, at: datetime, zone: ZoneInfo
) -> None:
    """Before 0012: the log does not say the day."""
    _run(cursor, PRESENT["lock_user_stats"].sql, user_id=user_id)
    _run(cursor, OLDER["add_reviews"].sql, **_review(user_id, card_id, at))
    _record_rating(cursor, user_id, card_id, at)
    _record_day(cursor, user_id, at, zone)


def rate_without_days(cursor: Cursor, user_id: str, card_id: str, at: datetime, zone: ZoneInfo) -> None:
    """Before 0007: the streak is a number that each rating moves on."""
    (row,) = _run(cursor, OLDER["lock_user_stats"].sql, user_id=user_id)
    _run(cursor, OLDER["add_reviews"].sql, **_review(user_id, card_id, at))
    _record_rating(cursor, user_id, card_id, at)
    _move_streak_on(cursor, user_id, at, zone, row)


def rate_without_log(cursor: Cursor, user_id: str, card_id: str, at: datetime, zone: ZoneInfo) -> None:
    """Before 0006: there is no log of reviews."""
    (row,) = _run(cursor, OLDER["lock_user_stats"].sql, user_id=user_id)
    _record_rating(cursor, user_id, card_id, at)
    _move_streak_on(cursor, user_id, at, zone, row)


def _record_rating(cursor: Cursor, user_id: str, card_id: str, at: datetime) -> None:
    _run(
        cursor,
        REPLACED["record_ratings"].sql,  # the same in all of them
        user_id=user_id,
        flashcard_ids=[card_id],
        confidence_levels=[3],
        mastery_statuses=["learning"],
        times=[1],
        seen_ats=[at],
        review_ats=[at + timedelta(days=1)],
    )


def _record_day(cursor: Cursor, user_id: str, at: datetime, zone: ZoneInfo) -> None:
    day = active_day(at, zone)
    _run(
        cursor,
        REPLACED["record_activity"].sql,
        user_id=user_id,
        active_at=at,
        days=[day.day],
        first_ats=[at],
        lapses_ats=[day.lapses_at],
        deck_ids=[],
    )


def _move_streak_on(cursor: Cursor, user_id: str, at: datetime, zone: ZoneInfo, row: tuple[Any, ...]) -> None:
    days, lapses_at, last_day, last_active_at, _ = row
    day = at.astimezone(zone).date()
    last = day if last_day is None else max(day, last_day)
    days = 1 if at >= lapses_at else days + (last != last_day)
    _run(
        cursor,
        OLDER["record_activity"].sql,
        user_id=user_id,
        active_at=max(at, last_active_at),
        active_date=last,
        streak_days=days,
        lapses_at=datetime.combine(last + timedelta(days=2), datetime.min.time(), tzinfo=zone),
    )


def record_now(
    cursor: Cursor,
    user_id: str,
    ratings: Sequence[tuple[str, int, datetime]],
    zone: ZoneInfo,
    *,
    key: str | None = None,
) -> dict[str, Any]:
    """Record ratings (card, level, moment) as the present release does; give what came of it by column.

    Of a single one, that is its outcome alone.
    """
    cards = sorted({card for card, _, _ in ratings})
    levels, moments = [level for _, level, _ in ratings], [at for _, _, at in ratings]
    days = [active_day(at, zone) for at in moments]
    found = _run(
        cursor,
        "SELECT f.id::text, d.class_id::text FROM flashcards AS f JOIN decks AS d ON d.id = f.deck_id"
        " WHERE f.id = ANY(%(cards)s::uuid[])",
        cards=cards,
    )
    places = dict(found)
    if len(ratings) == 1:
        ((lines,),) = _run(
            cursor,
            PRESENT["rate_card"].sql,
            user_id=user_id,
            flashcard_id=cards[0],
            class_id=places.get(cards[0], user_id),
            confidence_level=levels[0],
            mastery_status=mastery_of(levels[0]),
            review_seconds=int(review_after(levels[0]).total_seconds()),
            response_time_ms=None,
            session_id=None,
            rated_at=moments[0],
            day=days[0].day,
            lapses_at=days[0].lapses_at,
            now=moments[0],
            now_until=None,
            zone=None,
            key=key,
            fingerprint=None if key is None else bytes(32),
            stale=[],
            counts_wanted=True,
        )
        return {"outcome": lines.split("\n")[0]}
    (row,) = _run(
        cursor,
        PRESENT["record_ratings"].sql,
        user_id=user_id,
        key=key,
        fingerprint=None if key is None else bytes(32),
        stale=[],
        is_batch=True,
        counts_wanted=True,
        zone=None,
        now=max(moments),
        now_until=None,
        flashcard_ids=[card for card, _, _ in ratings],
        confidence_levels=levels,
        mastery_statuses=[mastery_of(level) for level in levels],
        review_seconds=[int(review_after(level).total_seconds()) for level in levels],
        response_times_ms=[None] * len(ratings),
        session_ids=[None] * len(ratings),
        rated_ats=moments,
        days=[day.day for day in days],
        lapses_ats=[day.lapses_at for day in days],
        card_ids=cards,
        class_ids=[places.get(card) for card in cards],
        own_sessions=[],
        memories=None,
    )
    assert cursor.description is not None
    return dict(zip([column.name for column in cursor.description], row, strict=True))


def _review(user_id: str, card_id: str, at: datetime) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "flashcard_ids": [card_id],
        "confidence_levels": [3],
        "response_times_ms": [None],
        "rated_ats": [at],
    }


def _run(cursor: Cursor, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    cursor.execute(statement, parameters)
    return cursor.fetchall() if cursor.description else []

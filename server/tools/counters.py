"""The kept figures against an exact recount: do the triggers of user_stats count right?"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ
from tqdm import tqdm

from server.stores.queries import load_queries
from server.tools.failures import CommandError

_CONNECT_SECONDS = 10
_STATUSES = ("new", "learning", "mastered")


class CountersUnreadable(CommandError):
    """The counters could not be compared; the message says why."""


@dataclass(frozen=True, slots=True)
class CounterDrift:
    """A user whose kept figures are wrong: cards by mastery status, as kept and as counted."""

    user_id: str
    kept: dict[str, int]
    counted: dict[str, int]


def check_counters(url: str, *, progress: bool | None = None) -> list[CounterDrift]:
    """Recount every user's cards by mastery and compare; changes nothing, and disturbs nobody.

    All is read from one snapshot, so that ratings that arrive meanwhile are no drift.

    Args:
        url: the database.
        progress: whether to show a progress bar; by default, if standard error is a terminal.

    Returns:
        The users whose figures are wrong; empty when all is well.

    Raises:
        CountersUnreadable: the database is away, or is not migrated.
    """
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    count = load_queries()["count_mastery"].sql
    drifts = []
    try:
        with (
            contextlib.closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection,
            connection.cursor() as cursor,
        ):
            connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
            cursor.execute("SELECT user_id::text, new_cards, learning_cards, mastered_cards FROM user_stats")
            for user_id, *figures in tqdm(cursor.fetchall(), unit=" users", disable=hidden, leave=False):
                kept = dict(zip(_STATUSES, figures, strict=True))
                cursor.execute(count, {"user_id": user_id})
                counted = dict.fromkeys(_STATUSES, 0) | dict(cursor.fetchall())
                if counted != kept:
                    drifts.append(CounterDrift(user_id, kept, counted))
    except psycopg2.Error as error:
        first_line = str(error).strip().partition("\n")[0]
        raise CountersUnreadable(f"the counters were not compared: {first_line}") from None
    return drifts

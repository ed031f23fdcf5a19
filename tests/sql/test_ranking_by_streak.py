"""The ranking by streak is true at every moment, although nobody writes when a streak lapses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from server.domain.study import activity
from server.stores.postgres.database import Database
from tests.conftest import run_sql
from tests.stores.postgres.databases import ask

PEOPLE = 60
RANKED = """
    SELECT user_id, CASE WHEN streak_lapses_at > now() THEN study_streak_days ELSE 0 END AS days
      FROM user_stats
     ORDER BY days DESC, streak_lapses_at DESC, study_streak_days DESC, user_id DESC
"""


def give_streaks(url: str, seed: int) -> None:
    """People with streaks that lapse at different midnights, have lapsed, or never were; many of equal length."""
    random = Random(seed)  # noqa: S311 - makes up people, guards nothing
    midnight = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    run_sql(url, "INSERT INTO users (email) SELECT n || '@example.com' FROM generate_series(1, 60) AS n")
    for (user_id,) in ask(url, "SELECT user_id FROM user_stats ORDER BY user_id"):
        if random.random() < 0.8:
            lapses_at = midnight + timedelta(hours=random.choice((-48, -30, -24, 6, 12, 24)))
            run_sql(
                url,
                f"UPDATE user_stats SET study_streak_days = {random.choice((1, 2, 2, 7))},"  # noqa: S608 - numbers
                f" streak_lapses_at = '{lapses_at}' WHERE user_id = '{user_id}'",
            )


async def walk(database: Database, page_size: int) -> list[tuple[str, int]]:
    """All users with their streaks, page after page as the API reads them."""
    found: list[tuple[str, int]] = []
    before: tuple[str, Any] | None = None
    while page := await activity.list_users(database, "streak", before=before, page_size=page_size):
        found += [(str(row["id"]), row["study_streak_days"]) for row in page]
        before = (page[-1]["rank"], page[-1]["id"])
    return found


@pytest.mark.parametrize(("seed", "page_size"), [(1, 1), (2, 7), (3, 100)])
async def test_pages_give_everybody_once_in_order(
    database_url: str, database: Database, seed: int, page_size: int
) -> None:
    """Longest living streak first, lapsed ones read 0 and come last; nobody twice, nobody left out."""
    give_streaks(database_url, seed)
    expected = [(str(user_id), days) for user_id, days in ask(database_url, RANKED)]
    assert PEOPLE == len(expected)
    assert expected == await walk(database, page_size)


async def test_a_streak_that_lapses_moves_at_once(database_url: str, database: Database) -> None:
    """The longest streak of all is last and 0 in the first look after its midnight."""
    give_streaks(database_url, 4)
    (user_id, days), *_ = await walk(database, 50)
    assert 7 == days
    run_sql(
        database_url,
        f"UPDATE user_stats SET streak_lapses_at = now() WHERE user_id = '{user_id}'",  # noqa: S608 - from above
    )
    assert (user_id, 0) in await walk(database, 50)


async def test_looking_writes_nothing(database_url: str) -> None:
    """The pages can be read where nothing can be written, such as on a standby."""
    give_streaks(database_url, 5)
    name = database_url.rpartition("/")[2]
    run_sql(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database = Database(database_url, pool_size=1)
    await database.start()
    try:
        assert PEOPLE == len(await walk(database, 50))
    finally:
        await database.close()


def test_a_streak_is_whole(database_url: str) -> None:
    """Days without a midnight at which they lapse, or the other way round, can't be stored."""
    run_sql(database_url, "INSERT INTO users (email) VALUES ('ada@example.com')")
    for change in ("study_streak_days = 3", "streak_lapses_at = now()"):
        with pytest.raises(Exception, match="user_stats_streak_whole"):
            run_sql(database_url, f"UPDATE user_stats SET {change}")  # noqa: S608 - from the line above

"""A page of users with their figures, and one user's detail: does their time grow with the users and the ratings?

Beside the two ways in which it is often done: one grouped query over all users, and a query for each user of the page.
Each world is a database of its own in one PostgreSQL, all there at the same time, asked in turn, round after round.

    python -m bench.analytics [--users 1000,100000] [--ratings 1000000,10000000] [--rounds 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import structlog

from bench.harness.table import as_text
from server.cli.generating import generate
from server.cli.migrations import migrate
from server.development import postgres_server
from server.domain.study import activity
from server.settings import ROOT
from server.stores.postgres.database import Database
from server.stores.postgres.queries import QUERIES_FOLDER

RESULTS = ROOT / "bench" / "results" / "analytics.json"
CARDS = 10_000
PAGE_SIZE = 50
# A round is the median of so many calls; of the grouped query it is one call.
CALLS = 50
POSTGRES = ("shared_buffers=2GB", "max_wal_size=8GB", "fsync=off")
ANSWER_MS = 300_000
GROUPED = "one grouped query"
PER_USER = "a query per user"
OURS = ("page by recent", "page by studied", "page by streak", "user's detail")
NAIVE_QUERIES = {
    # All users, counted, sorted, and all but a page of them thrown away.
    "rank_users_by_counting": """
        SELECT u.id, u.email, u.name, u.role, u.created_at, count(p.flashcard_id) AS total_cards_studied,
               count(*) FILTER (WHERE p.mastery_status = 'new') AS new_cards,
               count(*) FILTER (WHERE p.mastery_status = 'learning') AS learning_cards,
               count(*) FILTER (WHERE p.mastery_status = 'mastered') AS mastered_cards
          FROM users AS u
          LEFT JOIN user_card_progress AS p ON p.user_id = u.id
         GROUP BY u.id
         ORDER BY total_cards_studied DESC, u.id DESC
         LIMIT %(page_size)s
    """,
    # The ids of a page are found along an index: only the counting is naive.
    "list_busiest_users": """
        SELECT u.id, u.email, u.name, u.role, u.created_at
          FROM user_stats AS s JOIN users AS u ON u.id = s.user_id
         ORDER BY s.total_cards_studied DESC, s.user_id DESC
         LIMIT %(page_size)s
    """,
    "count_cards_of_user": """
        SELECT mastery_status, count(*) AS cards FROM user_card_progress WHERE user_id = %(user_id)s
         GROUP BY mastery_status
    """,
}

Way = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class World:
    """One database: so many users who have rated so many cards."""

    users: int
    ratings: int
    database: Database

    def ways(self, busiest: UUID) -> dict[str, Way]:
        """Everything that is measured here, by name."""

        async def count_per_user() -> None:
            for user in await self.database.fetch_all("list_busiest_users", page_size=PAGE_SIZE):
                await self.database.fetch_all("count_cards_of_user", user_id=user["id"])

        def page(order: activity.UserOrder) -> Awaitable[activity.Page]:
            return activity.list_users(self.database, order, before=None, page_size=PAGE_SIZE + 1)

        return {
            "page by recent": lambda: page("recent"),
            "page by studied": lambda: page("studied"),
            "page by streak": lambda: page("streak"),
            "user's detail": lambda: activity.get_user_figures(self.database, busiest),
            PER_USER: count_per_user,
            GROUPED: lambda: self.database.fetch_all("rank_users_by_counting", page_size=PAGE_SIZE),
        }


async def measure(worlds: Sequence[World], rounds: int) -> dict[tuple[int, int], dict[str, float]]:
    """The median of the rounds in milliseconds, by world and way."""
    found: dict[tuple[int, int], dict[str, list[float]]] = {}
    ways = {}
    for world in worlds:
        (first,) = await activity.list_users(world.database, "studied", before=None, page_size=1)
        ways[world.users, world.ratings] = world.ways(first["id"])
        found[world.users, world.ratings] = {name: [] for name in ways[world.users, world.ratings]}
    for number in range(rounds + 1):
        for name in (*OURS, PER_USER, GROUPED):
            calls: dict[tuple[int, int], list[float]] = {place: [] for place in ways}
            for _ in range(1 if name == GROUPED else CALLS):
                for place, by_name in ways.items():  # call by call: what disturbs one world disturbs all
                    started = time.perf_counter()
                    await by_name[name]()
                    calls[place].append((time.perf_counter() - started) * 1000)
            if number > 0:  # the first round warms up
                for place, times in calls.items():
                    found[place][name].append(statistics.median(times))
        print(f"round {number} of {rounds}", file=sys.stderr)
    return {
        place: {name: statistics.median(times) for name, times in by_name.items()}
        for place, by_name in found.items()
    }


@contextlib.contextmanager
def made_worlds(url: str, sizes: Sequence[tuple[int, int]]) -> Iterator[dict[tuple[int, int], str]]:
    """A database of each size on a server: its URL."""
    urls = {}
    for users, ratings in sizes:
        name = f"world_{users}_{ratings}"
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(f"CREATE DATABASE {name}")
        urls[users, ratings] = f"{url.rpartition('/')[0]}/{name}"
        migrate(urls[users, ratings])
        started = time.perf_counter()
        generate(urls[users, ratings], users=users, cards=CARDS, ratings=ratings)
        took = time.perf_counter() - started
        print(f"{users:,} users, {ratings:,} ratings: generated in {took:.0f} s", file=sys.stderr)
    yield urls


@contextlib.asynccontextmanager
async def opened(urls: dict[tuple[int, int], str]) -> AsyncIterator[list[World]]:
    """The databases, ready to be asked by the queries of the service and by the naive ones."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for file in QUERIES_FOLDER.rglob("*.sql"):
            (folder / file.name).write_text(file.read_text())
        for name, sql in NAIVE_QUERIES.items():
            (folder / f"{name}.sql").write_text(sql)
        worlds = []
        for (users, ratings), url in urls.items():
            database = Database(
                url,
                pool_size=1,
                query_timeout_ms=ANSWER_MS,
                slow_query_ms=ANSWER_MS,
                queries_folder=folder,
            )
            await database.start()
            stack.push_async_callback(database.close)
            worlds.append(World(users, ratings, database))
        yield worlds


def cells(found: dict[tuple[int, int], dict[str, float]]) -> list[list[str]]:
    """A line for each world: milliseconds, and how many times longer the naive ways take than the slowest page."""
    lines = []
    for (users, ratings), by_name in found.items():
        page = max(by_name[name] for name in OURS[:3])
        lines.append(
            [f"{users:,} users, {ratings:,} ratings"]
            + [f"{by_name[name]:.2f}" for name in OURS]
            + [f"{by_name[name]:,.1f} ({by_name[name] / page:,.0f} x)" for name in (PER_USER, GROUPED)]
        )
    return lines


def growth(found: dict[tuple[int, int], dict[str, float]]) -> list[str]:
    """How many times longer each of our ways takes with more ratings, and with more users."""
    sentences = []
    for users in sorted({users for users, _ in found}):
        of_users = sorted(ratings for other, ratings in found if other == users)
        few, many = of_users[0], of_users[-1]
        if few < many:
            ratios = [f"{name} {found[users, many][name] / found[users, few][name]:.2f} x" for name in OURS]
            sentences.append(f"{users:,} users, {many:,} beside {few:,} ratings: {', '.join(ratios)}")
    for ratings in sorted({ratings for _, ratings in found}):
        of_ratings = sorted(users for users, other in found if other == ratings)
        few, many = of_ratings[0], of_ratings[-1]
        if few < many:
            ratios = [
                f"{name} {found[many, ratings][name] / found[few, ratings][name]:.2f} x" for name in OURS
            ]
            sentences.append(f"{ratings:,} ratings, {many:,} beside {few:,} users: {', '.join(ratios)}")
    return sentences


async def compare(urls: dict[tuple[int, int], str], rounds: int) -> dict[tuple[int, int], dict[str, float]]:
    """All measurements."""
    async with opened(urls) as worlds:
        return await measure(worlds, rounds)


def main() -> None:
    """Parse the command line, measure, print, write the figures down."""
    options = _parse()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    sizes = [
        (users, ratings) for users in options.users for ratings in options.ratings if ratings <= users * CARDS
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres_server(Path(folder) / "postgres", options=POSTGRES) as server,
        made_worlds(server.url, sizes) as urls,
    ):
        found = asyncio.run(compare(urls, options.rounds))
    headings = ["milliseconds", *OURS, PER_USER, GROUPED]
    print(as_text(headings, cells(found)), *growth(found), sep="\n")
    figures: dict[str, Any] = {
        "measured_at": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "rounds": options.rounds,
        "cards": CARDS,
        "page_size": PAGE_SIZE,
        "milliseconds": [
            {"users": users, "ratings": ratings, **{name: round(ms, 3) for name, ms in by_name.items()}}
            for (users, ratings), by_name in found.items()
        ],
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.analytics", description=__doc__)
    parser.add_argument("--users", type=_numbers, default=[1000, 100_000], help="1000,100000")
    parser.add_argument("--ratings", type=_numbers, default=[1_000_000, 10_000_000], help="1000000,10000000")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved, after one to warm up (7)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()

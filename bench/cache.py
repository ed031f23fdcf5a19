"""The hit rate of the cache under a mixed load: generated students who browse, study and rate, on the real service.

One gunicorn worker, PostgreSQL and Redis, the sample course, and caches that are empty in the beginning: the first look
at everything is a miss, and counted. The load is described in bench/harness/students.py. The hit rate is the one that
the service itself reports at `GET /api/metrics/cache`: of all keys that requests needed, how many were found.

    python -m bench.cache [--students 200] [--seed 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import psycopg2

from bench.harness.machine import Cores, describe_machine
from bench.harness.students import CARDS, COUNTS, SHARED, Json, Student, Tally
from bench.harness.subjects import Subject, bearer, running, service
from bench.harness.table import as_text
from bench.harness.world import World, world
from server.domain.identity.tokens import AccessTokens, Caller
from server.settings import ROOT

RESULTS = ROOT / "bench" / "results" / "cache.json"
# How many students have a request under way at a time.
CONNECTIONS = 32
# Which query loads what of a reader; no two requests of a student are under way at once, so each miss is one.
LOADED_BY = {COUNTS: "list_class_mastery", CARDS: "list_class_progress"}
OUTCOMES = ("HIT", "STALE", "MISS", "BYPASS", "")
_QUERIES = re.compile(
    r'^database_query_duration_seconds_count\{query="(\w+)",target="primary"\} ([\d.e+]+)$', re.MULTILINE
)


class LoadDiffers(Exception):
    """What the service reports and what was asked for do not fit together."""


@dataclass(frozen=True, slots=True)
class Evening:
    """What came of the load.

    Attributes:
        reported: the `metrics` of GET /api/metrics/cache.
        queries: how often each query was run.
    """

    tally: Tally
    reported: Mapping[str, Any]
    queries: Counter[str]
    seconds: float

    @property
    def misses(self) -> dict[str, int]:
        """By kind of key; what was not loaded for a reader alone was shared content."""
        by_kind = {kind: self.queries[query] for kind, query in LOADED_BY.items()}
        return {SHARED: int(self.reported["misses"]) - sum(by_kind.values()), **by_kind}

    def by_route(self) -> list[list[str]]:
        """Lines of a table: route, requests, and how often which outcome."""
        routes = sorted({route for route, _ in self.tally.outcomes}, key=lambda route: route.split(" ")[::-1])
        return [
            [route, f"{sum(counts):,}", *(f"{count:,}" if count else "" for count in counts)]
            for route in routes
            for counts in [[self.tally.outcomes[route, outcome] for outcome in OUTCOMES]]
        ]

    def by_kind(self) -> list[list[str]]:
        """Lines of a table: kind of key, lookups, misses, hit rate."""
        lines = [(kind, self.tally.lookups[kind], misses) for kind, misses in self.misses.items()]
        lines.append(("all", sum(self.tally.lookups.values()), int(self.reported["misses"])))
        return [
            [kind, f"{asked:,}", f"{missed:,}", f"{100 - 100 * missed / asked:.2f} %"]
            for kind, asked, missed in lines
        ]

    def check(self) -> None:
        """The service must have counted what was asked for, but for what Redis did not answer in time.

        Raises:
            LoadDiffers: it has not.
        """
        asked, counted = sum(self.tally.lookups.values()), self.reported["hits"] + self.reported["misses"]
        if not counted <= asked <= counted + self.reported["errors"]:
            raise LoadDiffers(f"{asked} keys were needed; the service reports {dict(self.reported)}")

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        return {
            "requests": self.tally.outcomes.total(),
            "seconds": round(self.seconds, 1),
            "hitRate": self.reported["hitRate"],
            "reported": {
                name: self.reported[name] for name in ("hits", "misses", "sets", "deletes", "errors")
            },
            "kinds": {
                kind: {"lookups": self.tally.lookups[kind], "misses": missed}
                for kind, missed in self.misses.items()
            },
            "routes": {
                route: {
                    outcome or "none": count
                    for (name, outcome), count in self.tally.outcomes.items()
                    if name == route
                }
                for route in sorted({route for route, _ in self.tally.outcomes})
            },
        }


async def spend(
    subject: Subject, tokens: Sequence[str], admin: str, seed: int, *, connections: int = CONNECTIONS
) -> Evening:
    """Let all students have their evening at the same time, with so many requests under way."""
    tally, turn = Tally(), asyncio.Semaphore(connections)
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{subject.port}", connector=connector) as session:

        async def send(token: str, method: str, path: str, body: Json | None = None) -> tuple[Any, str]:
            async with turn, session.request(method, path, json=body, headers=bearer(token)) as response:
                text = await response.text()
                if response.status >= 300:
                    raise LoadDiffers(f"{method} {path}: {response.status} {text}")
                return (json.loads(text) if text else None), response.headers.get("X-Cache", "")

        def ask_of(token: str) -> Any:
            return lambda method, path, body=None: send(token, method, path, body)

        async def queries() -> Counter[str]:
            async with session.get("/api/metrics") as response:
                return Counter({name: int(float(n)) for name, n in _QUERIES.findall(await response.text())})

        await send(admin, "POST", "/api/metrics/cache/reset")
        before, began = await queries(), time.perf_counter()
        students = [Student(number, seed, ask_of(token), tally) for number, token in enumerate(tokens)]
        await asyncio.gather(*(student.spend_evening() for student in students))
        seconds = time.perf_counter() - began
        reported, _ = await send(admin, "GET", "/api/metrics/cache")
        return Evening(tally, reported["metrics"], await queries() - before, seconds)


def admin_token(surroundings: World) -> str:
    """Makes the last reader an administrator, and signs them in."""
    with (
        closing(psycopg2.connect(surroundings.database_url)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "UPDATE users SET role = 'admin' WHERE email = %s RETURNING id::text",
            (f"reader-{len(surroundings.tokens) - 1}@example.com",),
        )
        ((user_id,),) = cursor.fetchall()
    return AccessTokens(surroundings.secret_key, lifetime_seconds=3600).issue(Caller(UUID(user_id), "admin"))


def measure(students: int, seed: int) -> Evening:
    """The whole of it: servers, service, load."""
    with (
        world(readers=students + 2, cores=Cores.of_this_machine()) as surroundings,
        running(service(surroundings), surroundings) as subject,
    ):
        # The first reader has looked whether the service answers, the last one is the administrator.
        evening = asyncio.run(spend(subject, surroundings.tokens[1:-1], admin_token(surroundings), seed))
    evening.check()
    return evening


def main() -> None:
    """Parse the command line, measure, print, write the figures down."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache", description=__doc__)
    parser.add_argument("--students", type=int, default=200, help="who study at the same time (200)")
    parser.add_argument("--seed", type=int, default=1, help="of their evening (1)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args()
    print(f"{options.students} students, seed {options.seed}: about a minute", file=sys.stderr)
    evening = measure(options.students, options.seed)
    print(
        as_text(["", "requests", *(outcome or "not asked" for outcome in OUTCOMES)], evening.by_route()),
        end="\n\n",
    )
    print(as_text(["", "lookups", "misses", "hit rate"], evening.by_kind()), end="\n\n")
    print(f"hit rate as the service reports it: {evening.reported['hitRateFormatted']}")
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "students": options.students,
        "seed": options.seed,
        **evening.as_json(),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

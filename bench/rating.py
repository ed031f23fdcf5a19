"""What a rating costs: students who rate all cards of the course without a pause, on the service and on its peers.

By far the most frequent request of an evening (bench/cache.py), and the one that writes: the progress of the card, the
log of reviews, the streak, the counters, and the answer under its Idempotency-Key. A cached read of the same minute
stands beside it. With `--against FOLDER` the same is asked of another checkout, in turn, each on servers of its own:
what a change has brought shows on a busy machine too.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import psutil
import psycopg2

from bench.harness.generator import UNIQUE
from bench.harness.load import Load, request_bytes, run_load
from bench.harness.machine import Cores, cpu_seconds
from bench.harness.students import CONFIDENCE
from bench.harness.subjects import Subject, SubjectFailed, bearer, running, service
from bench.harness.table import as_text
from bench.harness.world import World, world
from server.settings import ROOT

RESULTS = ROOT / "bench" / "results" / "rating.json"
STUDENTS = 30
HEADINGS = (
    "",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "worker CPU µs",
    "PostgreSQL CPU µs",
    "Redis CPU µs",
    "rounds",
)
_WARM_UP_REQUESTS = 3_000
_BATCH = 100
# How a kind of request is called in the tables.
SINGLE, KEYED, BATCH, READ = "a rating", "a rating with a key", f"a batch of {_BATCH}", "a cached read"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round cost; times are of processors, for a request, in microseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    worker_us: float
    postgres_us: float
    redis_us: float


@dataclass(frozen=True, slots=True)
class Side:
    """A subject, on the servers that it has for itself."""

    name: str
    subject: Subject
    postgres: int
    redis: int


def print_ratings(*, rounds: int, seconds: float, connections: int, against: Path | None = None) -> None:
    """Measure, and print a table of the medians."""
    kinds = (READ, SINGLE, KEYED, BATCH)
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(side("service", ROOT))]
        if against is not None:
            sides.append(stack.enter_context(side("before", against)))
        found = interleave(sides, kinds, rounds=rounds, seconds=seconds, connections=connections)
    print(as_text(HEADINGS, lines_of(found)))


@contextlib.contextmanager
def side(name: str, folder: Path) -> Iterator[Side]:
    """The service of a checkout, on a PostgreSQL and a Redis of its own."""
    with world(
        readers=STUDENTS, cores=Cores.of_this_machine(), migrations=folder / "sql" / "migrations"
    ) as surroundings:
        launch = replace(service(surroundings, name=name), folder=folder)
        with running(launch, surroundings) as subject:
            yield Side(name, subject, postmaster_of(surroundings.database_url), redis_process(surroundings))


def interleave(
    sides: Sequence[Side], kinds: Sequence[str], *, rounds: int, seconds: float, connections: int
) -> dict[str, list[Cost]]:
    """Every kind of request on every side in every round, by "side, kind"; warm."""
    targets = {f"{one.name}: {kind}": (one, requests_of(one, kind)) for kind in kinds for one in sides}
    found: dict[str, list[Cost]] = {name: [] for name in targets}
    for one, requests in targets.values():
        done = 0
        while done < _WARM_UP_REQUESTS // (1 if len(requests) > STUDENTS else 10):
            done += _run(one, requests, seconds=3.0, connections=connections)[1]
    for number in range(rounds):
        order = list(targets.items())
        shift = number % len(sides)
        for name, (one, requests) in order[shift:] + order[:shift]:
            cost, _ = _run(one, requests, seconds=seconds, connections=connections)
            found[name].append(cost)
            sys.stderr.write(
                f"round {number + 1}  {name:<32}{cost.per_second:>9,.0f}/s  p99 {cost.p99_ms:7.1f} ms  "
                f"CPU {cost.worker_us:6.0f} + {cost.postgres_us:6.0f} + {cost.redis_us:4.0f} µs\n"
            )
    return found


def _run(one: Side, requests: Sequence[bytes], *, seconds: float, connections: int) -> tuple[Cost, int]:
    processes = (one.subject.process.pid, one.postgres, one.redis)
    before = [cpu_seconds(pid) for pid in processes]
    load = Load(one.subject.port, requests, connections=connections, seconds=seconds)
    figures = run_load(load, cores=one.subject.world.cores.beside)
    if figures.refused or figures.broken:
        raise SubjectFailed(
            f"{one.name}: {figures.refused} answers were errors, {figures.broken} connections broke"
        )
    one.subject.forget_log()
    spent = [
        (cpu_seconds(pid) - started) / figures.requests * 1e6
        for pid, started in zip(processes, before, strict=True)
    ]
    return Cost(figures.per_second, figures.p50_ms, figures.p99_ms, *spent), figures.requests


def requests_of(one: Side, kind: str) -> list[bytes]:
    """The requests of a kind, in an order drawn from a seed: every student rates every card of the course."""
    chance, port, tokens = Random(1), one.subject.port, one.subject.world.tokens
    if kind == READ:
        return one.subject.requests()
    cards = all_cards(one.subject.world.database_url)

    def confidence() -> int:
        return chance.choices(*CONFIDENCE)[0]

    if kind == BATCH:
        return [
            request_bytes(
                port,
                "/api/progress/cards",
                bearer(token),
                method="POST",
                body=_json({"ratings": [
                    {"flashcardId": card, "confidenceLevel": confidence()} for card in chance.sample(cards, _BATCH)
                ]}),
            )
            for token in tokens
        ]  # fmt: skip
    key = {"Idempotency-Key": UNIQUE.decode()} if kind == KEYED else {}
    rated = [(token, card) for token in tokens for card in cards]
    chance.shuffle(rated)
    return [
        request_bytes(
            port,
            f"/api/progress/cards/{card}",
            {**bearer(token), **key},
            method="PUT",
            body=_json({"confidenceLevel": confidence(), "responseTime": 4000}),
        )
        for token, card in rated
    ]


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()


def all_cards(database_url: str) -> list[str]:
    """The ids of the course's cards."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id::text FROM flashcards ORDER BY id")
        return [card for (card,) in cursor.fetchall()]


def postmaster_of(database_url: str) -> int:
    """The process id of a PostgreSQL on this machine."""
    with closing(psycopg2.connect(database_url)) as connection:
        return psutil.Process(connection.info.backend_pid).ppid()


def redis_process(surroundings: World) -> int:
    """The process id of the Redis on this machine."""
    import redis  # noqa: PLC0415

    with closing(redis.Redis.from_url(surroundings.redis.url)) as client:
        return int(client.info("server")["process_id"])


def lines_of(found: Mapping[str, Sequence[Cost]]) -> list[list[str]]:
    """The cells of a table of medians, a line for each target."""
    lines = []
    for name, costs in found.items():
        median = medians_of(costs)
        rates = [cost.per_second for cost in costs]
        lines.append(
            [
                name,
                f"{median.per_second:,.0f}",
                f"{median.p50_ms:.1f}",
                f"{median.p99_ms:.1f}",
                f"{median.worker_us:,.0f}",
                f"{median.postgres_us:,.0f}",
                f"{median.redis_us:,.0f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
            ]
        )
    return lines


def medians_of(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    return Cost(**{
        field: statistics.median(getattr(cost, field) for cost in costs) for field in Cost.__dataclass_fields__
    })  # fmt: skip

"""What a rating costs: students who rate all cards of the course without a pause, on the service and on its peers.

By far the most frequent request of an evening (bench/cache.py), and the one that writes: the progress of the card, the
log of reviews, the streak, the counters, and the answer under its Idempotency-Key. A cached read of the same minute
stands beside it. With `--against FOLDER` the same is asked of another checkout, in turn, each on servers of its own:
what a change has brought shows on a busy machine too.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import psutil
import psycopg2
import redis

from bench.harness.generator import UNIQUE
from bench.harness.load import Load, generator_name, request_bytes, run_load
from bench.harness.machine import Cores, cpu_seconds, describe_machine
from bench.harness.peers import PEERS, RATING_PEERS, PeerMissing, seed_content
from bench.harness.results import Document
from bench.harness.students import CONFIDENCE
from bench.harness.subjects import Launch, Subject, SubjectFailed, bearer, running, service
from bench.harness.table import as_markdown, as_text
from bench.harness.world import World, world
from server.settings import ROOT

STUDENTS = 30
_PEERS_TABLES = ROOT / "bench" / "peers" / "ratings.sql"
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
_WARM_UP_REQUESTS = 1_000
# A busy machine makes an answer late, and no error.
_PATIENCE = {
    "DATABASE_ACQUIRE_TIMEOUT_MS": "20000",
    "DATABASE_QUERY_TIMEOUT_MS": "20000",
    "RATE_LIMIT_DEADLINE_MS": "5000",
    "CACHE_DEADLINE_MS": "5000",
}
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
    """A subject, and the process ids of its servers."""

    name: str
    subject: Subject
    postgres: int
    redis: int


# By name: whom to ask, and what.
Targets = Mapping[str, tuple[Side, Sequence[bytes]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: interleaved rounds, of so many seconds each."""

    rounds: int = 5
    seconds: float = 5.0
    connections: int = 32


def print_ratings(plan: Plan, *, against: Path | None = None) -> None:
    """Print the costs of ratings, of a batch and of a cached read; with another checkout, in turn with it."""
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(_side("service", ROOT))]
        if against is not None:
            sides.append(stack.enter_context(_side("before", against)))
        found = interleave(_targets(sides, (READ, SINGLE, KEYED, BATCH)), plan)
    print(as_text(HEADINGS, lines_of(found)))


def measure_beside_peers(plan: Plan) -> Document:
    """The service beside the peers: a document for the results, its table printed."""
    missing: dict[str, str] = {}
    with (
        world(readers=STUDENTS, cores=Cores.of_this_machine()) as surroundings,
        contextlib.ExitStack() as stack,
    ):
        ours = stack.enter_context(_running(service(surroundings), surroundings))
        seed_content(surroundings, ours.subject.ask().body)
        _make_tables(surroundings.database_url)
        sides = [ours]
        for name in RATING_PEERS:
            try:
                peer = PEERS[name](surroundings)
            except PeerMissing as reason:
                missing[name] = str(reason)
                continue
            environment = {**peer.environment, "DATABASE_URL": surroundings.database_url}
            sides.append(stack.enter_context(_running(replace(peer, environment=environment), surroundings)))
        found = interleave({**_targets([ours], (READ, BATCH)), **_targets(sides, (SINGLE, KEYED))}, plan)
    print(as_text(HEADINGS, lines_of(found)))
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "conditions": {**asdict(plan), "generator": generator_name(), "students": STUDENTS},
        "load": round(os.getloadavg()[1], 1),
        "missing": missing,
        "rows": {name: [asdict(cost) for cost in costs] for name, costs in found.items()},
    }


def section(document: Mapping[str, Any]) -> str:
    """The table of the page, from what measure_beside_peers has given."""
    measured = document["ratings"]
    machine, how = measured["machine"], measured["conditions"]
    found = {name: [Cost(**cost) for cost in costs] for name, costs in measured["rows"].items()}
    missing = "".join(f"\n\n{name} is missing: {why}." for name, why in measured["missing"].items())
    return (
        f"{measured['date']}, {machine['processor']}, {machine['cores']} cores, Python {machine['python']};\n"
        f"{how['generator']}, {how['connections']} connections, {how['students']} students, medians of "
        f"{how['rounds']} rounds of {how['seconds']:g} s;\nthe machine's load was {measured['load']:g} in the end\n\n"
        f"{as_markdown(HEADINGS, lines_of(found))}{missing}"
    )


@contextlib.contextmanager
def _side(name: str, folder: Path) -> Iterator[Side]:
    """The service of a checkout, on a PostgreSQL and a Redis of its own."""
    with world(
        readers=STUDENTS, cores=Cores.of_this_machine(), migrations=folder / "sql" / "migrations"
    ) as surroundings:
        launch = service(surroundings, name=name)
        launch = replace(launch, command=["env", "-C", str(folder), *launch.command])
        with _running(launch, surroundings) as one:
            yield one


@contextlib.contextmanager
def _running(launch: Launch, surroundings: World) -> Iterator[Side]:
    launch = replace(launch, environment={**launch.environment, **_PATIENCE})
    with running(launch, surroundings) as subject:
        yield Side(
            launch.name, subject, postmaster_of(surroundings.database_url), redis_process(surroundings)
        )


def _make_tables(database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(_PEERS_TABLES.read_text(encoding="utf-8"))


def _targets(sides: Sequence[Side], kinds: Sequence[str]) -> Targets:
    return {f"{one.name}, {kind}": (one, requests_of(one, kind)) for kind in kinds for one in sides}


def interleave(targets: Targets, plan: Plan) -> dict[str, list[Cost]]:
    """Every target in every round, each time beginning with another one; warm."""
    found: dict[str, list[Cost]] = {name: [] for name in targets}
    for one, requests in targets.values():
        left = _WARM_UP_REQUESTS // (1 if len(requests) > STUDENTS else 10)
        while left > 0:
            left -= _run(one, requests, seconds=3.0, connections=plan.connections)[1]
    order = list(targets.items())
    for number in range(plan.rounds):
        shift = number % len(order)
        for name, (one, requests) in order[shift:] + order[:shift]:
            cost, _ = _run(one, requests, seconds=plan.seconds, connections=plan.connections)
            found[name].append(cost)
            sys.stderr.write(
                f"round {number + 1}  {name:<32}{cost.per_second:>9,.0f}/s  p99 {cost.p99_ms:7.1f} ms  "
                f"CPU {cost.worker_us:6.0f} + {cost.postgres_us:6.0f} + {cost.redis_us:4.0f} µs\n"
            )
    return found


def _run(one: Side, requests: Sequence[bytes], *, seconds: float, connections: int) -> tuple[Cost, int]:
    processes = (one.subject.process.pid, one.postgres, one.redis)
    before = [cpu_seconds_of_all(pid) for pid in processes]
    load = Load(one.subject.port, requests, connections=connections, seconds=seconds)
    figures = run_load(load, cores=one.subject.world.cores.beside)
    if figures.refused or figures.broken:
        raise SubjectFailed(
            f"{one.name}: {figures.refused} answers were errors, {figures.broken} connections broke"
        )
    one.subject.forget_log()
    spent = [
        (cpu_seconds_of_all(pid) - started) / figures.requests * 1e6
        for pid, started in zip(processes, before, strict=True)
    ]
    return Cost(figures.per_second, figures.p50_ms, figures.p99_ms, *spent), figures.requests


def cpu_seconds_of_all(pid: int) -> float:
    """The processor time of a process and its descendants, those that have ended too: a pool closes connections."""
    ended = psutil.Process(pid).cpu_times()
    return cpu_seconds(pid) + ended.children_user + ended.children_system


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

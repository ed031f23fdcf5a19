"""What a request of an evening costs each part of a deployment, and how large the deployment has to be for many.

Students spend an evening (bench/harness/students.py) on one worker, in turn on several deployments: with and without
PgBouncer, on one Redis and on a Cluster of three masters. What is measured is the processor time of each part, divided
by the requests. `--write` puts the figures, and what bench/harness/capacity.py computes from them, into the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from textwrap import fill as fold
from typing import Any

import psycopg2
import redis

from bench.cache import admin_token, spend
from bench.harness.capacity import Capacity, Cost, Memory, carried_by_core
from bench.harness.cluster import redis_cluster
from bench.harness.deployment import UTILISATION
from bench.harness.machine import Cores, describe_machine
from bench.harness.pooler import pooler
from bench.harness.results import RESULTS as ALL_RESULTS
from bench.harness.results import Document, read_document, write_document
from bench.harness.students import SHARED
from bench.harness.subjects import Subject, running, service
from bench.harness.table import as_markdown, as_text
from bench.harness.world import REDIS_OPTIONS, World, world
from bench.rating import cpu_seconds_of_all, postmaster_of
from server.development import redis_server
from server.settings import ROOT

PAGE = ROOT / "docs" / "scaling.md"
RESULTS = ALL_RESULTS.with_name("scaling.json")
DIRECT, POOLED, CLUSTERED = "one Redis", "one Redis, PgBouncer", "three masters, PgBouncer"
RATES = (1_000, 10_000, 100_000, 1_000_000)
_MASTERS = 3
_PAGE_WIDTH = 118
_SECTION = re.compile(r"(<!-- bench:(?P<name>[a-z]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
_QUERY_SECONDS = re.compile(r"^database_query_duration_seconds_sum\{[^}]*\} ([\d.e+-]+)$", re.MULTILINE)
_RESPONSE_BYTES = re.compile(rb'"response_bytes":(\d+)')
_READS, _READS_AT_ONCE = 40_000, 16
# Students whose requests go one after the other.
_ALONE = 2
# A busy machine makes an answer late, and no error.
_PATIENCE = {
    "DATABASE_ACQUIRE_TIMEOUT_MS": "20000",
    "DATABASE_QUERY_TIMEOUT_MS": "20000",
    "RATE_LIMIT_DEADLINE_MS": "5000",
    "CACHE_DEADLINE_MS": "5000",
}
HEADINGS = (
    "", "requests/s", "worker µs", "Redis µs", "PostgreSQL µs", "PgBouncer µs",
    "statements ms", "commits", "WAL bytes", "log bytes", "Redis bytes", "client bytes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: interleaved rounds, in each of which so many students have their evening."""

    rounds: int = 3
    students: int = 40


@dataclass(frozen=True, slots=True)
class Side:
    """A deployment that is running.

    Attributes:
        masters: its Redis servers, by URL.
        processes: the ids of worker's master, of all Redis servers, of PostgreSQL, and of PgBouncer if there is one.
    """

    subject: Subject
    database_url: str
    admin: str
    masters: Sequence[str]
    processes: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class _Counts:
    """What has been counted so far, on all sides."""

    seconds: Mapping[str, float]
    query_seconds: float
    commits: int
    wal: int
    redis_bytes: int


def measure(plan: Plan) -> Document:
    """All sides, in turn: a document for the results, its first table printed."""
    with world(readers=plan.students + 2, cores=Cores.of_this_machine()) as surroundings:
        admin = admin_token(surroundings)
        with contextlib.ExitStack() as stack:
            sides = {
                name: stack.enter_context(_side(surroundings, name, admin))
                for name in (DIRECT, POOLED, CLUSTERED)
            }
            found: dict[str, list[tuple[float, Cost]]] = {name: [] for name in sides}
            shared = 0.0
            for number in range(plan.rounds + 1):  # the first round fills the caches
                shift = number % len(sides)
                for name, side in [*sides.items()][shift:] + [*sides.items()][:shift]:
                    per_second, shared, cost = _evening(side, seed=number)
                    sys.stderr.write(
                        f"round {number} of {plan.rounds}  {name:<28}{per_second:>7,.0f}/s  {cost}\n"
                    )
                    if number > 0:
                        found[name].append((per_second, cost))
            memory = _memory(sides[DIRECT], plan.students)
            read_us = _read_us(sides[DIRECT])
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "conditions": asdict(plan),
        "load": round(os.getloadavg()[1], 1),
        "memory": asdict(memory),
        "sharedReads": shared,
        "readUs": read_us,
        "rows": {
            name: {
                "perSecond": statistics.median(rate for rate, _ in rounds),
                **asdict(_median([cost for _, cost in rounds])),
            }
            for name, rounds in found.items()
        },
    }
    print(as_text(HEADINGS, _lines(document)))
    return document


def write(document: Document) -> None:
    """Keep the results, and put them into the page."""
    write_document(document, RESULTS)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), read_document(RESULTS)), encoding="utf-8")


def fill(page: str, document: Document) -> str:
    """The page with what is between its markers replaced by what the document says.

    Raises:
        KeyError: a marker names a section that there is not.
    """
    return _SECTION.sub(lambda found: f"{found[1]}{SECTIONS[found['name']](document)}\n{found[3]}", page)


@contextlib.contextmanager
def _side(surroundings: World, name: str, admin: str) -> Iterator[Side]:
    """A deployment with a database and Redis servers of its own: no cache knows what another one's students did."""
    folder = surroundings.folder / name.replace(" ", "-").replace(",", "")
    folder.mkdir()
    database_url = _copy_database(surroundings.database_url, "scaling_" + str(len(name)))
    with contextlib.ExitStack() as stack:
        url, more = database_url, {}
        if name != DIRECT:
            front = stack.enter_context(
                pooler(folder, database_url, default_pool_size="20", max_client_conn="200")
            )
            url, more = front.url, {"pooler": [front.process.pid]}
        if name == CLUSTERED:
            cluster = stack.enter_context(redis_cluster(folder / "redis", _MASTERS))
            redis_url, servers = cluster.url, cluster.masters
        else:
            server = stack.enter_context(redis_server(folder / "redis", options=REDIS_OPTIONS))
            redis_url, servers = server.url, (server,)
        launch = service(surroundings, name=folder.name)
        environment = {
            **launch.environment,
            **_PATIENCE,
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
        }
        subject = stack.enter_context(running(replace(launch, environment=environment), surroundings))
        processes = {
            "worker": [subject.process.pid],
            "redis": [server.pid for server in servers],
            "postgres": [postmaster_of(database_url)],
            **more,
        }
        yield Side(subject, database_url, admin, [server.url for server in servers], processes)


def _copy_database(url: str, name: str) -> str:
    base, _, template = url.rpartition("/")
    with closing(psycopg2.connect(f"{base}/postgres")) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return f"{base}/{name}"


def _evening(side: Side, seed: int) -> tuple[float, float, Cost]:
    """One evening of all students: requests a second, reads of shared content a request, what a request cost."""
    tokens = side.subject.world.tokens[1:-1]
    side.subject.forget_log()
    before = _count(side)
    evening = asyncio.run(spend(side.subject, tokens, side.admin, seed))
    after = _count(side)
    requests = evening.tally.outcomes.total()
    log = side.subject.log.read_bytes()
    answered = sum(int(size) for size in _RESPONSE_BYTES.findall(log))
    head = sum(len(name) + len(value) + 4 for name, value in side.subject.ask().headers.items())
    us = {part: (after.seconds[part] - spent) / requests * 1e6 for part, spent in before.seconds.items()}
    return (
        requests / evening.seconds,
        evening.tally.lookups[SHARED] / requests,
        Cost(
            worker_us=us["worker"],
            redis_us=us["redis"],
            postgres_us=us["postgres"],
            pooler_us=us.get("pooler", 0.0),
            database_ms=_statement_ms(side, tokens[:_ALONE], seed),
            commits=(after.commits - before.commits) / requests,
            wal_bytes=(after.wal - before.wal) / requests,
            log_bytes=len(log) / requests,
            redis_bytes=(after.redis_bytes - before.redis_bytes) / requests,
            client_bytes=head + answered / requests,
        ),
    )


def _statement_ms(side: Side, tokens: Sequence[str], seed: int) -> float:
    """How long the statements of a request take, with one request under way: on two cores they would wait else."""
    before = _count(side).query_seconds
    evening = asyncio.run(spend(side.subject, tokens, side.admin, -seed, connections=1))
    return (_count(side).query_seconds - before) / evening.tally.outcomes.total() * 1000


def _count(side: Side) -> _Counts:
    metrics = side.subject.ask("/api/metrics").body.decode()
    with closing(psycopg2.connect(side.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(
            "SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
            " FROM pg_stat_database WHERE datname = current_database()"
        )
        ((commits, wal),) = cursor.fetchall()
    redis_bytes = 0
    for url in side.masters:
        with closing(redis.Redis.from_url(url)) as client:
            stats: Any = client.info("stats")
            redis_bytes += stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
    return _Counts(
        seconds={part: sum(cpu_seconds_of_all(pid) for pid in pids) for part, pids in side.processes.items()},
        query_seconds=sum(float(seconds) for seconds in _QUERY_SECONDS.findall(metrics)),
        commits=commits,
        wal=wal,
        redis_bytes=redis_bytes,
    )


def _memory(side: Side, students: int) -> Memory:
    """What the students have left in Redis, a student: under the keys of the limiter, and under those of their own."""
    limiter = cache = 0
    with closing(redis.Redis.from_url(side.masters[0])) as client:
        for key in client.scan_iter(count=1000):
            size: Any = client.memory_usage(key, samples=0)
            if key.startswith(b"r:"):
                limiter += size or 0
            elif re.search(rb"[0-9a-f-]{36}.*[0-9a-f-]{36}", key):  # of a user and of a class
                cache += size or 0
    return Memory(limiter / students, cache / students)


def _read_us(side: Side) -> float:
    """Redis's processor time for a read of a shared page, microseconds, where several arrive together."""
    (pid,) = side.processes["redis"]
    with closing(redis.Redis.from_url(side.masters[0])) as client:
        page = next(client.scan_iter(match="c:class:*", count=1000))
        before = cpu_seconds_of_all(pid)
        for _ in range(_READS // _READS_AT_ONCE):
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(_READS_AT_ONCE):
                    pipeline.get(page)
                pipeline.execute()
    return (cpu_seconds_of_all(pid) - before) / _READS * 1e6


def _median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    return Cost(**{
        field: statistics.median(getattr(cost, field) for cost in costs) for field in Cost.__dataclass_fields__
    })  # fmt: skip


def _cost(document: Document, name: str) -> Cost:
    row = document["rows"][name]
    return Cost(**{field: row[field] for field in Cost.__dataclass_fields__})


def _lines(document: Document) -> list[list[str]]:
    lines = []
    for name, row in document["rows"].items():
        cost = _cost(document, name)
        lines.append(
            [
                name,
                f"{row['perSecond']:,.0f}",
                f"{cost.worker_us:,.0f}",
                f"{cost.redis_us:,.0f}",
                f"{cost.postgres_us:,.0f}",
                f"{cost.pooler_us:,.0f}",
                f"{cost.database_ms:.2f}",
                f"{cost.commits:.2f}",
                f"{cost.wal_bytes:,.0f}",
                f"{cost.log_bytes:,.0f}",
                f"{cost.redis_bytes:,.0f}",
                f"{cost.client_bytes:,.0f}",
            ]
        )
    return lines


def _measured(document: Document) -> str:
    machine, how = document["machine"], document["conditions"]
    return (
        f"{document['date']}, {machine['processor']}, {machine['cores']} cores, Python {machine['python']};\n"
        f"{how['students']} students, medians of {how['rounds']} rounds; the machine's load was "
        f"{document['load']:g} in the end\n\n{as_markdown(HEADINGS, _lines(document))}"
    )


def _carried(document: Document) -> str:
    direct, pooled, clustered = (_cost(document, name) for name in (DIRECT, POOLED, CLUSTERED))
    lines = [
        ["a worker, on a core", f"{carried_by_core(direct.worker_us):,.0f}"],
        ["a worker on a Cluster", f"{carried_by_core(clustered.worker_us):,.0f}"],
        ["one Redis", f"{carried_by_core(direct.redis_us):,.0f}"],
        ["each master of a Cluster", f"{carried_by_core(clustered.redis_us):,.0f}"],
        ["one PgBouncer", f"{carried_by_core(pooled.pooler_us):,.0f}"],
        ["PostgreSQL, each core", f"{carried_by_core(direct.postgres_us):,.0f}"],
        ["PostgreSQL, each core behind PgBouncer", f"{carried_by_core(pooled.postgres_us):,.0f}"],
    ]
    return as_markdown((f"at {UTILISATION:.0%} of its core", "requests/s"), lines)


def _needed(document: Document) -> str:
    cost, memory = _cost(document, CLUSTERED), Memory(**document["memory"])
    needs = [Capacity(rate, cost, memory) for rate in RATES]

    def line(name: str, *values: str) -> list[str]:
        return [name, *values]

    rows = [
        line("workers, a core each", *(f"{one.workers:,}" for one in needs)),
        line("dynos of 4 workers", *(f"{one.dynos:,}" for one in needs)),
        line("Redis masters, each with a replica", *(f"{one.masters:,}" for one in needs)),
        line("PgBouncer processes", *(f"{one.poolers:,}" for one in needs)),
        line("PostgreSQL cores", *(f"{one.postgres_cores:,}" for one in needs)),
        line("PostgreSQL primaries, so installations", *(f"{one.installations:,}" for one in needs)),
        line("connections in use", *(f"{one.busy_connections:,}" for one in needs)),
        line(
            "`max_connections` of a primary, for its poolers",
            *(f"{one.server_connections:,}" for one in needs),
        ),
        line("`DATABASE_POOL_SIZE`", *(f"{one.pool_size:,}" for one in needs)),
        line(
            "`max_client_conn`, all poolers of an installation",
            *(f"{one.client_connections:,}" for one in needs),
        ),
        line("commits a second", *(f"{one.per_second * cost.commits:,.0f}" for one in needs)),
        line("PostgreSQL's log of changes, MB/s", *(f"{one.wal_mb_a_second:,.1f}" for one in needs)),
        line("students at a time", *(f"{one.clients:,.0f}" for one in needs)),
        line("memory of all masters, GB", *(f"{one.memory_gb:,.2f}" for one in needs)),
        line("workers to Redis, Mbit/s", *(f"{one.redis_mbit_a_second:,.0f}" for one in needs)),
        line("responses, Mbit/s", *(f"{one.client_mbit_a_second:,.0f}" for one in needs)),
        line("log, GB a day", *(f"{one.log_gb_a_day:,.0f}" for one in needs)),
    ]
    return as_markdown(("requests a second", *(f"{rate:,}" for rate in RATES)), rows)


def _client(document: Document) -> str:
    memory, cost = Memory(**document["memory"]), _cost(document, CLUSTERED)
    hot_us = document["sharedReads"] * document["readUs"]
    lines = (
        (
            f"A student of the measured evening holds {memory.limiter_bytes:,.0f} bytes of limits and "
            f"{memory.cache_bytes:,.0f} bytes of overlays in Redis."
        ),
        (
            f"**A client's slot** is on one master. All that Redis does for a request takes {cost.redis_us:,.0f} µs: "
            f"one client alone could have {carried_by_core(cost.redis_us):,.0f} requests a second admitted."
        ),
        (
            f"**A page that everybody reads** is one key on one master. A read takes {document['readUs']:.1f} µs. With "
            f"{document['sharedReads']:.2f} such reads a request, all of one class, its master carries "
            f"{carried_by_core(hot_us):,.0f} requests a second."
        ),
    )
    return "\n".join(fold(f"- {line}", width=_PAGE_WIDTH, subsequent_indent="  ") for line in lines)


SECTIONS = {"measured": _measured, "carried": _carried, "needed": _needed, "client": _client}

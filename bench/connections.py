"""What many clients at once leave of the service: two thousand kept connections, then one user who writes without end.

The service runs as in production: `serve` with two workers and its own settings, limits alone are raised; beside it
a PostgreSQL and a Redis, all on the same cores as the load. Readers come from as many users as there are connections,
each asks for the classes and for one of them, so many times a second together. What is asked in the first seconds is
counted for itself: it is not in the cache yet. The rest is longer than two of the periods after which the rights of
every caller are looked up again. Then one user rates a card on many connections at once, each sends the
next rating when it has the answer to the one before; meanwhile other users rate and read.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import cycle

import psutil
import psycopg2
import uvloop

from bench.harness.load import request_bytes
from bench.harness.machine import Cores
from bench.harness.subjects import Subject, bearer, running, service
from bench.harness.table import as_text
from bench.harness.world import world
from server.errors import CommandError

HEADINGS = ("clients", "answers", "statuses", "p50 ms", "p99 ms", "longest ms", "MB/worker")
WORKERS = 2
_ANYWHERE = Cores(frozenset(), frozenset())
_OTHERS = 50
_OTHERS_A_SECOND = 50.0
_WRITING_SECONDS = 15.0
_SPARE_FILES = 200
_DEADLINE_SECONDS = 60.0
_BODY = json.dumps({"confidenceLevel": 4}).encode()
# What says in the log that something did not go as it should, and the field that says how.
_TROUBLE = {"rate_limit.redis_down": "error", "http.unavailable": "reason", "cache.unavailable": "error"}


@dataclass(slots=True)
class Crowd:
    """Some clients, and what they got.

    Attributes:
        statuses: of their answers; 0 where a connection ended without one.
        answers_ms: how long each answer took, milliseconds.
        memory_mb: of the largest worker, when they had been served.
    """

    name: str
    statuses: Counter[int] = field(default_factory=Counter)
    answers_ms: list[float] = field(default_factory=list)
    memory_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it.

    Attributes:
        crowds: in the order in which they came.
        trouble: how many lines the log has of each kind of trouble; nothing where all went well.
        limiter_failures: decisions for which Redis was asked in vain.
        cache_failures: lookups for which it was.
    """

    crowds: list[Crowd]
    trouble: Counter[str]
    limiter_failures: int
    cache_failures: int


def measure_connections(
    connections: int,
    *,
    seconds: float,
    per_second: float,
    writers: int,
    writing_seconds: float = _WRITING_SECONDS,
) -> Figures:
    """Serve so many clients.

    Args:
        connections: of readers, a user each.
        seconds: for which they read.
        per_second: how often they ask together.
        writers: connections of the one user who writes.
        writing_seconds: for which that goes on.

    Raises:
        CommandError: this machine allows too few open files.
    """
    _allow_files(max(connections, writers + _OTHERS) + _SPARE_FILES)
    with world(readers=max(connections, _OTHERS + 1), cores=_ANYWHERE) as surroundings:
        launch = service(surroundings, workers=WORKERS)
        with running(launch, surroundings) as subject:
            reads, writes = _paths(surroundings.database_url)
            crowds = uvloop.run(
                _measure(subject, reads, writes, connections, seconds, per_second, writers, writing_seconds)
            )
            return Figures(
                crowds,
                _trouble(subject),
                limiter_failures=_sum(subject, "rate_limit_failures_total"),
                cache_failures=_sum(subject, "cache_errors_total"),
            )


def print_connections(connections: int, seconds: float, per_second: float, writers: int) -> None:
    """The same as a table on standard output."""
    figures = measure_connections(connections, seconds=seconds, per_second=per_second, writers=writers)
    rows = [
        (
            crowd.name,
            f"{len(crowd.answers_ms):,}",
            ", ".join(f"{status}: {count:,}" for status, count in sorted(crowd.statuses.items())),
            f"{statistics.median(crowd.answers_ms):.1f}",
            f"{statistics.quantiles(crowd.answers_ms, n=100)[98]:.1f}",
            f"{max(crowd.answers_ms):.0f}",
            f"{crowd.memory_mb:.0f}",
        )
        for crowd in figures.crowds
    ]
    sys.stdout.write(as_text(HEADINGS, rows) + "\n\n")
    trouble = ", ".join(f"{kind}: {count}" for kind, count in sorted(figures.trouble.items())) or "none"
    sys.stdout.write(
        f"decisions without Redis: {figures.limiter_failures}; lookups without: {figures.cache_failures};"
        f" trouble in the log: {trouble}\n"
    )


async def _measure(
    subject: Subject,
    reads: Sequence[str],
    writes: Sequence[str],
    connections: int,
    seconds: float,
    per_second: float,
    writers: int,
    writing_seconds: float,
) -> list[Crowd]:
    tokens = subject.world.tokens
    first, readers = Crowd(f"{connections:,} readers, at first"), Crowd(f"{connections:,} readers")
    every = connections / per_second
    change_at = time.monotonic() + min(2 * every, seconds / 2)
    classes = cycle(reads[1:])
    await asyncio.gather(
        *(
            _ask(
                subject.port,
                cycle(
                    [request_bytes(subject.port, path, bearer(token)) for path in (reads[0], next(classes))]
                ),
                lambda: first if time.monotonic() < change_at else readers,
                seconds,
                every=every,
            )
            for token in tokens[:connections]
        )
    )
    first.memory_mb = readers.memory_mb = _memory_mb(subject)
    one, others = Crowd(f"one user, {writers} at once"), Crowd(f"{_OTHERS} others meanwhile")
    await asyncio.gather(
        *(
            _ask(
                subject.port,
                cycle([_rating(subject.port, writes[0], tokens[0])]),
                lambda: one,
                writing_seconds,
            )
            for _ in range(writers)
        ),
        *(
            _ask(
                subject.port,
                cycle(
                    [
                        _rating(subject.port, writes[number % len(writes)], token),
                        request_bytes(subject.port, reads[0], bearer(token)),
                    ]
                ),
                lambda: others,
                writing_seconds,
                every=_OTHERS / _OTHERS_A_SECOND,
            )
            for number, token in enumerate(tokens[1 : _OTHERS + 1])
        ),
    )
    one.memory_mb = others.memory_mb = _memory_mb(subject)
    return [first, readers, one, others]


async def _ask(
    port: int,
    requests: Iterator[bytes],
    crowd_now: Callable[[], Crowd],
    seconds: float,
    *,
    every: float = 0.0,
) -> None:
    """One connection: a request every so many seconds, at instants of its own, or as soon as there is an answer."""
    until = time.monotonic() + seconds
    await asyncio.sleep(random.uniform(0, every))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until:
        crowd, began = crowd_now(), time.perf_counter()
        writer.write(next(requests))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0]))
            crowd.statuses[int(head[9:12])] += 1
        except (OSError, EOFError):
            crowd.statuses[0] += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        took = time.perf_counter() - began
        crowd.answers_ms.append(took * 1000)
        if every:
            await asyncio.sleep(max(0.0, random.uniform(0.5, 1.5) * every - took))
    writer.close()


def _rating(port: int, path: str, token: str) -> bytes:
    lines = [
        f"PUT {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(_BODY)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + _BODY


def _paths(database_url: str) -> tuple[list[str], list[str]]:
    """What is read, and what is written to."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM classes ORDER BY sort_order, name")
        classes = [f"/api/classes/{row[0]}" for row in cursor.fetchall()]
        cursor.execute("SELECT id FROM flashcards ORDER BY sort_order, id LIMIT 20")
        cards = [f"/api/progress/cards/{row[0]}" for row in cursor.fetchall()]
    return ["/api/classes", *classes], cards


def _memory_mb(subject: Subject) -> float:
    """The resident memory of the largest worker."""
    workers = psutil.Process(subject.process.pid).children()
    return max(worker.memory_info().rss for worker in workers) / 1e6


def _sum(subject: Subject, metric: str) -> int:
    """What the series of a counter sum up to."""
    lines = subject.ask("/api/metrics").body.decode().splitlines()
    return int(
        sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{metric}{{", f"{metric} "))
        )
    )


def _trouble(subject: Subject) -> Counter[str]:
    found: Counter[str] = Counter()
    with subject.log.open(encoding="utf-8") as log:
        for text in log:
            if '"level":"info"' in text:
                continue
            line = json.loads(text)
            if line["message"] in _TROUBLE:
                how = line.get(_TROUBLE[line["message"]], line.get("error.message"))
                found[f"{line['message']} {how}"] += 1
    return found


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise CommandError(f"this machine allows {hard} open files, and {wanted} are needed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

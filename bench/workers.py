"""Whether two workers carry twice as much as one.

Where the load, Redis and PostgreSQL have a core beside two for the workers, that is measured: one worker and two, each
as fast as they can. Where they have none, two workers can't show it. There the load is lower, so that every process
gets the time that it asks for, and the processor time of a request is compared: of one worker under so many requests
a second, and of two under twice as many over twice as many connections. What the workers share (the listening socket,
the files of metrics, Redis, the counters of the limiter) would cost time if they had to wait for each other in it.
Two cores show no more: what cores share in hardware is seen only where each worker has one, beside the load.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from bench.harness.load import Load, run_load
from bench.harness.machine import Cores, cpu_seconds, usable_cores
from bench.harness.rounds import Target, run_round
from bench.harness.subjects import Subject, running, service
from bench.harness.table import as_text
from bench.harness.world import World, world

HEADINGS = (
    "", "connections", "requests/s", "p50 ms", "p99 ms", "workers' CPU µs", "Redis CPU µs", "the busier one's share",
)  # fmt: skip
ONE, SHARED, APART = "one worker", "two workers, one core", "two workers, a core each"
_CONNECTIONS = 32
# Of what one worker can: two of them and the load leave time on two cores.
_SHARE = 0.3
_READERS = 100


@dataclass(frozen=True, slots=True)
class Cost:
    """What requests cost under a load that all can carry.

    Attributes:
        worker_us: processor time of all workers for a request, microseconds.
        redis_us: of Redis.
        busier: the share of the workers' time that the busier one of them had.
    """

    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    worker_us: float
    redis_us: float
    busier: float


def measure_workers(surroundings: World, *, rounds: int, seconds: float) -> dict[str, Any]:
    """The figures for the document of results: `speed_up`, how it was found, and the rows of the lower load."""
    cores = usable_cores()
    with contextlib.ExitStack() as stack:
        subjects = {
            name: stack.enter_context(_pinned(surroundings, number, name, cores))
            for name, number in ((ONE, 1), (SHARED, 2), (APART, 2))
        }
        capacity = run_round(Target(ONE, subjects[ONE]), seconds=seconds)[0].per_second
        if len(cores) > 2:
            return {"cores": len(cores), "speed_up": _fastest(subjects, rounds, seconds), "measured": "apart"}
        for subject in subjects.values():
            run_round(Target(subject.name, subject), seconds=1.0)
        found: dict[str, list[Cost]] = {name: [] for name in subjects}
        for _ in range(rounds):
            for name, subject in subjects.items():
                times = 1 if name == ONE else 2
                found[name].append(_cost(subject, times, times * _SHARE * capacity, seconds))
    rows = {name: _median(costs) for name, costs in found.items()}
    return {
        "cores": len(cores),
        "speed_up": _speed_up(rows[ONE], rows[APART]),
        "speed_up_on_one_core": _speed_up(rows[ONE], rows[SHARED]),
        "measured": "by processor time",
        "rows": {name: asdict(row) for name, row in rows.items()},
    }


def _speed_up(one: Cost, two: Cost) -> float:
    """At most 2: a request that costs less beside another worker waited for more of its kind, to be sent together."""
    return min(2.0, 2 * one.worker_us / two.worker_us)


def worker_lines(measured: dict[str, Any]) -> list[list[str]]:
    """The cells of the table of the lower load."""
    return [
        [
            name,
            str(row["connections"]),
            f"{row['per_second']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['worker_us']:.0f}",
            f"{row['redis_us']:.0f}",
            f"{row['busier']:.0%}",
        ]
        for name, row in measured["rows"].items()
    ]


def verdict(measured: dict[str, Any]) -> str:
    """What the figures say, in a sentence."""
    if "rows" not in measured:
        return (
            f"Two workers answered {measured['speed_up']:.2f} times as many requests as one, on a core each."
        )
    return (
        f"By processor time for a request, two workers carry {measured['speed_up']:.2f} times as much as one with a "
        f"core each, {measured['speed_up_on_one_core']:.2f} times when they take turns on one."
    )


def print_workers(rounds: int, seconds: float) -> None:
    """The same as a table on standard output."""
    cores = Cores.of_this_machine(workers=1)
    with world(readers=_READERS, cores=cores) as surroundings:
        measured = measure_workers(surroundings, rounds=rounds, seconds=seconds)
    if "rows" in measured:
        sys.stdout.write(as_text(HEADINGS, worker_lines(measured)) + "\n\n")
    sys.stdout.write(verdict(measured) + "\n")


@contextlib.contextmanager
def _pinned(surroundings: World, workers: int, name: str, cores: Sequence[int]) -> Iterator[Subject]:
    """The service with so many workers, each on the core where it is to be."""
    launch = service(surroundings, name=name.replace(", ", "-").replace(" ", "-"), workers=workers)
    with running(launch, surroundings) as subject:
        pids = [child.pid for child in psutil.Process(subject.process.pid).children()]
        if cores:
            apart = name == APART and len(cores) > 1
            for place, pid in enumerate(pids):
                psutil.Process(pid).cpu_affinity([cores[place if apart else 0]])
        yield replace(subject, name=name)


def _fastest(subjects: dict[str, Subject], rounds: int, seconds: float) -> float:
    rates: dict[str, list[float]] = {ONE: [], APART: []}
    for _ in range(rounds):
        for name, found in rates.items():
            one, _ = run_round(Target(name, subjects[name]), seconds=seconds, connections=2 * _CONNECTIONS)
            found.append(one.per_second)
    return statistics.median(rates[APART]) / statistics.median(rates[ONE])


def _cost(subject: Subject, times: int, per_second: float, seconds: float) -> Cost:
    surroundings = subject.world
    workers = [child.pid for child in psutil.Process(subject.process.pid).children()]
    redis = surroundings.redis.pid
    before, redis_before = [cpu_seconds(pid) for pid in workers], cpu_seconds(redis)
    load = Load(
        subject.port,
        subject.requests(),
        connections=times * _CONNECTIONS,
        seconds=seconds,
        per_second=per_second,
    )
    figures = run_load(load, cores=surroundings.cores.beside, generator="ours")
    spent = [cpu_seconds(pid) - was for pid, was in zip(workers, before, strict=True)]
    subject.forget_log()
    return Cost(
        connections=load.connections,
        per_second=figures.per_second,
        p50_ms=figures.p50_ms,
        p99_ms=figures.p99_ms,
        worker_us=sum(spent) / figures.requests * 1e6,
        redis_us=(cpu_seconds(redis) - redis_before) / figures.requests * 1e6,
        busier=max(spent) / sum(spent),
    )


def _median(costs: Sequence[Cost]) -> Cost:
    columns = {
        column: statistics.median(getattr(cost, column) for cost in costs)
        for column in Cost.__dataclass_fields__
    }
    return Cost(**{**columns, "connections": costs[0].connections})

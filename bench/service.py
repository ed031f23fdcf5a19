"""The service measured: beside bare aiohttp and the peers in interleaved rounds, then by itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from bench.harness.chain import measure_chain
from bench.harness.features import check_features
from bench.harness.keys import SIZES, sweep_keys
from bench.harness.load import generator_name
from bench.harness.machine import Cores, describe_machine, worker_memory_mb
from bench.harness.peers import PEERS, PeerMissing, seed_content
from bench.harness.redis import redis_use
from bench.harness.results import Document, rows_as_json
from bench.harness.rounds import Round, Target, interleave, medians
from bench.harness.scenarios import (
    lag_percentile_ms,
    loop_lag_buckets,
    refusing,
    soak,
    sweep_connections,
    sweep_policies,
    unchanged,
)
from bench.harness.subjects import Subject, bare, running, service
from bench.harness.table import HEADINGS, as_text, cells, sweep_headings, sweep_lines
from bench.harness.world import World, world
from bench.starts import measure_starts, medians_of_starts
from bench.workers import measure_workers

ROWS = ("service", "refused", "unchanged", "bare", *PEERS)
READERS = 100
_KEYS_SECONDS = 240.0
_STARTS = 5
_SWEEP_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: interleaved, of so many `seconds` each.
        readers: how many different users ask.
        only: the rows; the service is started in any case, for it makes the bytes that all serve.
        generator: of the load; by default wrk where it is installed.
        soak_seconds: of the long load; 0 for none.
        keys: the largest number of clients in the sweep of the limiter's keys.
    """

    rounds: int = 5
    seconds: float = 5.0
    connections: int = 64
    readers: int = READERS
    only: tuple[str, ...] = ROWS
    generator: str | None = None
    soak_seconds: float = 0.0
    keys: int = max(SIZES)


def compare(plan: Plan) -> Document:
    """The rows of a plan, as a table on standard output and as the beginning of a document."""
    with _started(plan) as (surroundings, subjects, _):
        return _compare(plan, surroundings, subjects)


def measure_everything(plan: Plan) -> Document:
    """The comparison, then the service by itself: every figure that docs/performance.md shows."""
    with _started(plan) as (surroundings, subjects, missing):
        features = {}
        for name in ("service", *(peer for peer in PEERS if peer in subjects)):
            features[name] = check_features(surroundings, name)
            say(f"{name}: {features[name]}")
        document = {**_compare(plan, surroundings, subjects), "features": features, "missing": missing}
        ours = subjects["service"]
        say("what a request costs Redis")
        document["redis"] = {
            name: asdict(redis_use(subjects[name], seconds=plan.seconds))
            for name in ("service", *PEERS)
            if name in subjects
        }
        say("the cost by link of the chain")
        chain = measure_chain(
            surroundings,
            ours=ours,
            bare=subjects["bare"],
            rounds=plan.rounds,
            seconds=plan.seconds,
            on_round=show_round,
        )
        document["chain"] = [asdict(step) for step in chain]
        say("connections, policies, workers, starts")
        document["connections"] = _sweep(
            sweep_connections(ours, rounds=min(plan.rounds, _SWEEP_ROUNDS), seconds=plan.seconds)
        )
        document["crowd"] = document["connections"][-1]
        document["policies"] = _sweep(sweep_policies(surroundings, seconds=plan.seconds))
        document["workers"] = measure_workers(surroundings, rounds=plan.rounds, seconds=plan.seconds)
        document["start"] = medians_of_starts(measure_starts(surroundings, times=_STARTS))
        if plan.soak_seconds:
            say(f"a load of {plan.soak_seconds:.0f} s")
            document["soak"] = asdict(soak(ours, seconds=plan.soak_seconds, on_step=_show_soak))
        sizes = tuple(size for size in SIZES if size <= plan.keys)
        say(f"the limiter with up to {sizes[-1]:,} clients")
        keys = sweep_keys(surroundings.folder, surroundings.cores, seconds=_KEYS_SECONDS, sizes=sizes)
        document["keys"] = [asdict(one) for one in keys]
        return document


def _compare(plan: Plan, surroundings: World, subjects: dict[str, Subject]) -> Document:
    ours = subjects["service"]
    with contextlib.ExitStack() as stack:
        targets = [Target(name, subject) for name, subject in subjects.items() if name in plan.only]
        if "unchanged" in plan.only:
            targets.append(unchanged(ours))
        if "refused" in plan.only:
            targets.append(stack.enter_context(refusing(surroundings)))
        memory_at_start = worker_memory_mb(ours.process.pid)
        lag_before = loop_lag_buckets(ours)
        found = interleave(
            targets,
            rounds=plan.rounds,
            seconds=plan.seconds,
            connections=plan.connections,
            generator=plan.generator,
            on_round=show_round,
        )
        lag = lag_percentile_ms(lag_before, loop_lag_buckets(ours), 0.99)
    rows = {name: medians(name, rounds) for name, rounds in found.items()}
    print(as_text(HEADINGS, cells(rows)), flush=True)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "conditions": {
            "generator": plan.generator or generator_name(),
            "connections": plan.connections,
            "readers": plan.readers,
            "rounds": plan.rounds,
            "secondsPerRound": plan.seconds,
            "ownCore": surroundings.cores.divided,
        },
        "rows": rows_as_json(rows),
        "memoryAtStartMb": memory_at_start,
        "loopLagP99Ms": lag,
    }


@contextlib.contextmanager
def _started(plan: Plan) -> Iterator[tuple[World, dict[str, Subject], dict[str, str]]]:
    """The surroundings, the subjects of a plan by name, and why others are missing."""
    cores = Cores.of_this_machine()
    how = "the subject has a core for itself" if cores.divided else "load and subject share the cores"
    say(
        f"load: {plan.generator or generator_name()}, {plan.connections} connections, {plan.readers} readers; {how}"
    )
    with world(readers=plan.readers, cores=cores) as surroundings, contextlib.ExitStack() as stack:
        ours = stack.enter_context(running(service(surroundings), surroundings))
        subjects, missing = {"service": ours}, {}
        reference = ours.ask()
        seed_content(surroundings, reference.body)
        if "bare" in plan.only:
            subjects["bare"] = stack.enter_context(running(bare(surroundings, reference), surroundings))
        for name in (peer for peer in PEERS if peer in plan.only):
            try:
                launch = PEERS[name](surroundings)
            except PeerMissing as reason:
                missing[name] = str(reason)
                say(f"{name} is left out: {reason}")
                continue
            subjects[name] = stack.enter_context(running(launch, surroundings))
        yield surroundings, subjects, missing


def print_growth(connections: Sequence[int], rounds: int, seconds: float) -> None:
    """The service under so many connections, as a table on standard output."""
    plan = Plan(only=("service",))
    with _started(plan) as (_, subjects, _missing):
        found = _sweep(
            sweep_connections(subjects["service"], rounds=rounds, seconds=seconds, counts=connections)
        )
    sys.stdout.write(as_text(sweep_headings("connections"), sweep_lines(found)) + "\n")


def show_round(number: int, target: Target, one: Round) -> None:
    """One line of progress."""
    disturbed = "" if one.core_share > 0.9 else f"  (only {one.core_share:.0%} of a core)"
    say(
        f"round {number + 1}  {target.name:<12}{one.per_second:>10,.0f}/s  p99 {one.p99_ms:8.2f} ms  "
        f"CPU {one.cpu_us:6.1f} µs{disturbed}"
    )


def say(line: str) -> None:
    """Progress goes to standard error, results to standard output."""
    print(line, file=sys.stderr, flush=True)


def _show_soak(seconds: float, memory_mb: float) -> None:
    say(f"after {seconds:.0f} s: {memory_mb:.1f} MB")


def _sweep(found: list[tuple[int, Round]]) -> list[dict[str, Any]]:
    return [{"count": count, **asdict(one)} for count, one in found]

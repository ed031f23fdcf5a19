"""Interleaved rounds: every subject in turn, again and again, so that a disturbance disturbs all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.harness.load import Load, LoadFigures, run_load
from bench.harness.machine import cpu_seconds, worker_memory_mb
from bench.harness.subjects import Subject, SubjectFailed, ask, bearer

_WARM_UP_REQUESTS = 10_000  # by then V8 has compiled what is hot: before, Fastify costs three times as much
_WARM_UP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Target:
    """What a round asks a subject, and whether it is to refuse.

    Attributes:
        name: of the row in the table.
        status: of every answer; it is asked before and after the load.
        path: what is asked for; by default the class.
        anonymous: whether the requests carry no token.
    """

    name: str
    subject: Subject
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    path: str | None = None
    anonymous: bool = False

    def requests(self) -> list[bytes]:
        """The requests of the load."""
        return self.subject.requests(self.headers, path=self.path, anonymous=self.anonymous)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round cost.

    Attributes:
        per_second: requests answered a second.
        p50_ms, p99_ms: percentiles of the time to an answer, in milliseconds.
        cpu_us: processor time of the subject for a request, in microseconds, over all its processes.
        memory_mb: resident memory of one worker after the round.
        core_share: how much of a core the subject got; below 1 something else ran there, or the load was small.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    memory_mb: float
    core_share: float


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of a target's rounds, and how far the rounds lay apart."""

    name: str
    median: Round
    slowest: float
    fastest: float
    rounds: int

    def as_json(self) -> dict[str, Any]:
        """For the file of results; names are those of the fields."""
        return {
            **asdict(self.median),
            "slowest": self.slowest,
            "fastest": self.fastest,
            "rounds": self.rounds,
        }


def medians(name: str, rounds: Sequence[Round]) -> Row:
    """One row out of several rounds: the median of each column by itself."""
    columns = {
        column: statistics.median(getattr(one, column) for one in rounds)
        for column in Round.__dataclass_fields__
    }
    rates = [one.per_second for one in rounds]
    return Row(name, Round(**columns), min(rates), max(rates), len(rounds))


def run_round(
    target: Target, *, seconds: float, connections: int = 64, generator: str | None = None
) -> tuple[Round, LoadFigures]:
    """Put the load on one target once.

    Raises:
        SubjectFailed: it answered something else than it should have.
    """
    subject = target.subject
    _check(target)
    load = Load(subject.port, target.requests(), connections=connections, seconds=seconds)
    before = cpu_seconds(subject.process.pid)
    figures = run_load(load, cores=subject.world.cores.beside, generator=generator)
    cpu = cpu_seconds(subject.process.pid) - before
    expected_refusals = figures.requests if target.status >= 400 else 0
    # the requests that were on their way at the end are counted by one and not by the other
    if abs(figures.refused - expected_refusals) > connections:
        raise SubjectFailed(
            f"{target.name}: {figures.refused} of {figures.requests} answers were errors; its log: {_tail(subject)}"
        )
    _check(target)
    memory = worker_memory_mb(subject.process.pid)
    subject.forget_log()
    return Round(
        per_second=figures.per_second,
        p50_ms=figures.p50_ms,
        p99_ms=figures.p99_ms,
        cpu_us=cpu / figures.requests * 1e6,
        memory_mb=memory,
        core_share=cpu / figures.seconds,
    ), figures


def interleave(
    targets: Sequence[Target],
    *,
    rounds: int,
    seconds: float,
    connections: int = 64,
    generator: str | None = None,
    on_round: Callable[[int, Target, Round], None] = lambda _n, _target, _round: None,
) -> dict[str, list[Round]]:
    """All targets in every round, each time beginning with another one; warm."""
    found: dict[str, list[Round]] = {target.name: [] for target in targets}
    for target in targets:
        _warm_up(target, connections=connections, generator=generator)
    for number in range(rounds):
        shift = number % len(targets)
        for target in [*targets[shift:], *targets[:shift]]:
            one, _ = run_round(target, seconds=seconds, connections=connections, generator=generator)
            found[target.name].append(one)
            on_round(number, target, one)
    return found


def _warm_up(target: Target, *, connections: int, generator: str | None) -> None:
    requests = 0
    for _ in range(_WARM_UP_SECONDS):
        if requests < _WARM_UP_REQUESTS:
            requests += run_round(target, seconds=1.0, connections=connections, generator=generator)[
                1
            ].requests


def _check(target: Target) -> None:
    caller = {} if target.anonymous else bearer(target.subject.world.tokens[0])
    path = target.path or target.subject.world.path
    answer = ask(target.subject.port, path, {**caller, **target.headers})
    if answer.status != target.status:
        raise SubjectFailed(
            f"{target.name} answered {answer.status} instead of {target.status}: {answer.body[:300]!r}"
        )


def _tail(subject: Subject) -> str:
    with subject.log.open("rb") as log:
        log.seek(max(0, subject.log.stat().st_size - 1500))
        return log.read().decode(errors="replace")

"""The comparison: our service, bare aiohttp and the peers, in interleaved rounds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from bench.harness_load import generator_name
from bench.harness_machine import Cores
from bench.harness_peers import PEERS, PeerMissing, seed_content
from bench.harness_rounds import Round, Row, Target, interleave, medians
from bench.harness_subjects import Subject, bare, running, service
from bench.harness_table import HEADINGS, as_text, cells
from bench.harness_world import World, world

SUBJECTS = ("service", "bare", "fastify", "fastapi")
READERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        only: the subjects; the service is started in any case, for it makes the bytes that all serve.
        readers: how many different users ask.
        generator: of the load; by default wrk where it is installed.
    """

    rounds: int = 5
    seconds: float = 5.0
    connections: int = 64
    readers: int = READERS
    only: tuple[str, ...] = SUBJECTS
    generator: str | None = None


def compare(plan: Plan) -> dict[str, Row]:
    """Start the subjects of a plan, measure them, print the table."""
    cores = Cores.of_this_machine()
    how = "the subject has a core for itself" if cores.divided else "load and subject share the cores"
    say(
        f"load: {plan.generator or generator_name()}, {plan.connections} connections, {plan.readers} readers; {how}"
    )
    with (
        world(readers=plan.readers, cores=cores) as surroundings,
        subjects(surroundings, plan.only) as started,
    ):
        found = interleave(
            [Target(subject.name, subject, {}) for subject in started if subject.name in plan.only],
            rounds=plan.rounds,
            seconds=plan.seconds,
            connections=plan.connections,
            generator=plan.generator,
            on_round=show_round,
        )
    rows = {name: medians(name, rounds) for name, rounds in found.items()}
    print(as_text(HEADINGS, cells(rows)))
    return rows


@contextlib.contextmanager
def subjects(surroundings: World, names: Collection[str]) -> Iterator[list[Subject]]:
    """The service, and those of the other subjects that are named, all running for the length of the block."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(running(service(surroundings), surroundings))
        started = [ours]
        if "bare" in names:
            started.append(stack.enter_context(running(bare(surroundings, ours.ask()), surroundings)))
        seed_content(surroundings, ours.ask().body)
        for name in (name for name in PEERS if name in names):
            try:
                launch = PEERS[name](surroundings)
            except PeerMissing as missing:
                say(f"{name} is left out: {missing}")
                continue
            started.append(stack.enter_context(running(launch, surroundings)))
        yield started


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

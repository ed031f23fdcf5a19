"""The service by itself: refused and unchanged answers, several workers, connections, policies, a long load."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.harness.features import small_limits
from bench.harness.machine import worker_memory_mb
from bench.harness.rounds import Round, Target, medians, run_round
from bench.harness.subjects import Subject, bearer, running, service
from bench.harness.world import World

CONNECTIONS = (1, 4, 16, 64, 256, 1024)
POLICIES = (1, 2, 4, 8)
_SOAK_STEP_SECONDS = 10.0
_LAG_BUCKET = re.compile(r'^event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
_NO_LIMIT = 100_000_000


@dataclass(frozen=True, slots=True)
class SoakFigures:
    """Memory of the worker under a long load.

    Attributes:
        start_mb: before it.
        warm_mb: after the first tenth of it, when every cache is full.
        end_mb: after it.
    """

    seconds: float
    requests: int
    start_mb: float
    warm_mb: float
    end_mb: float


@contextlib.contextmanager
def refusing(world: World) -> Iterator[Target]:
    """A service that refuses every request of the load: each reader has one in an hour, and has had it."""
    launch = service(world, name="service-refusing", policies=small_limits(world.folder, 1))
    with running(launch, world) as subject:
        for token in world.tokens:
            subject.ask(headers=bearer(token))
        yield Target("refused", subject, {}, 429)


def unchanged(subject: Subject) -> Target:
    """The same service, asked by readers who have the answer already."""
    etag = subject.ask().headers["etag"]
    return Target("unchanged", subject, {"If-None-Match": etag}, 304)


def sweep_connections(
    subject: Subject, *, rounds: int, seconds: float, counts: Sequence[int] = CONNECTIONS
) -> list[tuple[int, Round]]:
    """The same load over more and more connections, all opened at once: the medians of some rounds."""
    found = []
    for count in counts:
        target = Target(f"{count} connections", subject)
        ran = [run_round(target, seconds=seconds, connections=count)[0] for _ in range(rounds)]
        found.append((count, medians(target.name, ran).median))
    return found


def sweep_policies(
    world: World, *, seconds: float, counts: Sequence[int] = POLICIES
) -> list[tuple[int, Round]]:
    """The same load under more and more policies a request."""
    found = []
    for count in counts:
        policies = small_limits(world.folder, _NO_LIMIT, policies=count)
        with running(service(world, name=f"service-{count}-policies", policies=policies), world) as subject:
            target = Target(f"{count} policies", subject)
            run_round(target, seconds=1.0)
            found.append((count, run_round(target, seconds=seconds)[0]))
    return found


def soak(subject: Subject, *, seconds: float, on_step: Callable[[float, float], None]) -> SoakFigures:
    """A long load; `on_step` gets the seconds so far and the worker's memory in MB."""
    start = warm = memory = worker_memory_mb(subject.process.pid)
    began = time.monotonic()
    requests = 0
    while (elapsed := time.monotonic() - began) < seconds:
        step = min(_SOAK_STEP_SECONDS, seconds - elapsed + 1)
        one, figures = run_round(Target("soak", subject), seconds=step)
        requests += figures.requests
        memory = one.memory_mb
        on_step(time.monotonic() - began, memory)
        if elapsed <= seconds / 10:
            warm = memory
    return SoakFigures(seconds, requests, start, warm, memory)


def loop_lag_buckets(subject: Subject) -> dict[float, float]:
    """The service's own histogram of how late its event loop was: counts by upper bound in seconds."""
    text = subject.ask("/api/metrics").body.decode()
    return {float(bound.replace("+Inf", "inf")): float(count) for bound, count in _LAG_BUCKET.findall(text)}


def lag_percentile_ms(before: dict[float, float], after: dict[float, float], share: float) -> float | None:
    """The lag in ms that a share of the ticks between two readings did not exceed: a bucket's bound; None for none."""
    counts = [(bound, after[bound] - before.get(bound, 0)) for bound in sorted(after)]
    if not counts or counts[-1][1] <= 0:
        return None
    wanted = share * counts[-1][1]
    return next(bound for bound, count in counts if count >= wanted) * 1e3

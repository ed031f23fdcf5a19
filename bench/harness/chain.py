"""What each link of the chain adds to a request, seen from outside: by requests that go further and further."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from bench.harness.features import small_limits
from bench.harness.rounds import Round, Target, interleave, medians
from bench.harness.subjects import Subject, running, service
from bench.harness.world import World

OnRound = Callable[[int, Target, Round], None]


@dataclass(frozen=True, slots=True)
class Step:
    """A request that goes one step further than the one before it.

    Attributes:
        name: what the step adds.
        cpu_us: processor time of such a request, microseconds.
        added_us: what the step adds to the one before it.
    """

    name: str
    cpu_us: float
    added_us: float


def measure_chain(
    world: World, *, ours: Subject, bare: Subject, rounds: int, seconds: float, on_round: OnRound
) -> list[Step]:
    """From bare aiohttp to the whole chain, in interleaved rounds."""
    without_limits = service(
        world, name="service-unlimited", policies=small_limits(world.folder, 1, policies=0)
    )
    with contextlib.ExitStack() as stack:
        unlimited = stack.enter_context(running(without_limits, world))
        targets = [
            Target("bare aiohttp", bare),
            Target("request id, timing, metrics, headers, log line", ours, path="/livez", anonymous=True),
            Target("who is calling: the access token", ours, path="/livez"),
            Target("content and overlay from Redis, JSON, ETag", unlimited),
            Target("the limiter, two policies", ours),
        ]
        found = interleave(targets, rounds=rounds, seconds=seconds, on_round=on_round)
    costs = [medians(target.name, found[target.name]).median.cpu_us for target in targets]
    before = [0.0, *costs]
    return [
        Step(target.name, cost, cost - previous)
        for target, cost, previous in zip(targets, costs, before, strict=False)
    ]

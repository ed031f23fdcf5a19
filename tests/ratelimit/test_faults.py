"""Redis broken in every way: the limiter answers in time, the policy's mode decides, and it recovers by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest

from server.ratelimit import Charge, Decision, Limiter, Policy
from server.stores.redis_link import RedisLink
from tests.ratelimit.broken_redis import FAULTS, Fault, breakable_redis
from tests.ratelimit.conftest import FaultRow, fault_table
from tests.waiting import wait_until

DEADLINE_MS = 200
BROKEN_SECONDS = 1.2
LOCAL_LIMIT = 5

OPEN = Policy("open", 100_000, 600_000)
CLOSED = Policy("closed", 100_000, 600_000, on_failure="closed")
LOCAL = Policy("local", LOCAL_LIMIT, 600_000, on_failure="local")

# Faults during which Redis decides nothing at all.
AWAY: frozenset[Fault] = frozenset(
    {"paused", "killed", "readonly", "out of memory", "loading", "slow by 200 ms", "cut in mid-reply"}
)


@dataclass
class Load:
    """Steady requests, and what came of them."""

    limiter: Limiter
    decisions: list[tuple[str, Decision]] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    async def ask(self, policy: Policy, subject: str) -> None:
        """One request."""
        began = monotonic()
        decision = await self.limiter.decide([Charge(policy, "faults", subject)])
        self.latencies_ms.append((monotonic() - began) * 1000)
        self.decisions.append((policy.name, decision))

    async def run(self, seconds: float) -> None:
        """Three requests every few milliseconds, whether or not earlier ones have been answered."""
        ends = monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            while monotonic() < ends:
                for policy in (OPEN, CLOSED, LOCAL):
                    tasks.create_task(self.ask(policy, f"user:{policy.name}"))
                await asyncio.sleep(0.005)

    def of(self, policy: Policy) -> list[Decision]:
        """The decisions under a policy."""
        return [decision for name, decision in self.decisions if name == policy.name]


@pytest.mark.parametrize("fault", FAULTS)
async def test_point_08_a_deadline_a_breaker_a_fallback(
    fault: Fault, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """No decision is late, each mode holds while Redis is away, and Redis decides again when it is back."""
    async with breakable_redis(tmp_path / "redis") as redis:
        link = RedisLink(redis.url, deadline_ms=DEADLINE_MS, connect_timeout_ms=500)
        await link.start()
        limiter = Limiter(link, deadline_ms=DEADLINE_MS)
        load = Load(limiter)
        try:
            await load.ask(OPEN, "user:open")
            assert load.decisions[0][1].source == "redis"
            async with redis.broken_by(fault):
                await load.run(BROKEN_SECONDS)
            mended = monotonic()
            await wait_until(lambda: redis_decides(limiter), "Redis decides again")
            recovered_ms = (monotonic() - mended) * 1000
        finally:
            await limiter.close()
            await link.close()

    latencies = sorted(load.latencies_ms)
    p99_ms = latencies[int(len(latencies) * 0.99)]
    sources: Counter[str] = Counter(decision.source for _, decision in load.decisions[1:])
    fault_table(pytestconfig).append(
        FaultRow(fault, len(latencies), latencies[len(latencies) // 2], p99_ms, dict(sources), recovered_ms)
    )
    assert p99_ms <= 1.2 * DEADLINE_MS
    assert all(decision.allowed for decision in load.of(OPEN))
    assert sum(decision.allowed for decision in load.of(LOCAL)) <= 2 * LOCAL_LIMIT
    if fault in AWAY:
        assert sources["closed"] > 0
        assert sources["redis"] < 20


async def redis_decides(limiter: Limiter) -> bool:
    """Whether a decision comes from Redis."""
    decision = await limiter.decide([Charge(OPEN, "faults", "user:probe")])
    return decision.source == "redis"

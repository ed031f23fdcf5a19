"""Random histories on a real Cluster, while a slot migrates and while a master is lost, against the oracle.

The time is real: windows are long, so that nothing leaves them. `closed` policies make it exact: whatever Redis did not
decide was refused, and is charged nowhere.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.crc import key_slot

from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.policies import subject_prefix
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.ratelimit.oracle import Admission, OracleWindow
from tests.support.properties import examples
from tests.support.redis_fleet import PASSWORD, TestCluster, redis_cluster
from tests.support.redis_servers import open_link, redis_binaries
from tests.support.waiting import wait_until

LIMIT = 40
SPAN_US = 3_600_000_000
POLICY = Policy("cluster", LIMIT, SPAN_US // 1000, on_failure="closed")
HISTORIES = examples(3)


@dataclass(slots=True)
class Client:
    """A subject, its slot, and what the oracle knows of it."""

    limiter: Limiter
    subject: str
    window: OracleWindow = field(default_factory=OracleWindow)
    sources: set[str] = field(default_factory=set)

    @property
    def slot(self) -> int:
        """Where its keys are."""
        return key_slot(subject_prefix(self.subject))

    @property
    def used(self) -> int:
        """Units that the oracle has admitted."""
        return self.window.used(0, SPAN_US)

    async def ask(self, cost: int) -> str:
        """Make a request; what Redis decides is what the oracle decides. Returns the source."""
        decision = await self.limiter.decide([Charge(POLICY, "g", self.subject, cost)])
        self.sources.add(decision.source)
        fits = self.used + cost <= LIMIT
        if decision.source == "redis":
            assert fits == decision.allowed
            if fits:
                self.window.admissions.append(Admission(0, cost))
            assert LIMIT - self.used == decision.verdicts[0].remaining
        else:
            assert not decision.allowed
            assert decision.source == "closed" or not fits
        return decision.source

    async def is_as_counted(self) -> None:
        """Redis has counted what the oracle has, and nothing else."""
        left = (await self.limiter.peek([Charge(POLICY, "g", self.subject)])).verdicts[0].remaining
        assert LIMIT - self.used == left


def clients_of(limiter: Limiter, cluster: TestCluster, name: str) -> tuple[Client, Client]:
    """A client of the first master, and one of another."""
    mine: list[Client] = []
    others: list[Client] = []
    for number in range(200):
        subject = f"user:{name}-{number}"
        owner = cluster.owner_of(subject_prefix(subject).decode())
        (mine if owner is cluster.masters[0] else others).append(Client(limiter, subject))
    return mine[0], others[0]


def slot_migration(cluster: TestCluster, slot: int) -> list[Callable[[], Awaitable[object]]]:
    """The steps that move a slot from the first master to the second, as redis-cli takes them."""
    source, target = cluster.masters[:2]

    async def move_keys() -> None:
        keys = await source.admin.execute("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        if keys:
            where = ("127.0.0.1", target.server.port, "", 0, 5000)
            await source.admin.execute("MIGRATE", *where, "AUTH", PASSWORD, "KEYS", *keys)

    return [
        lambda: target.admin.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id),
        lambda: source.admin.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id),
        move_keys,
        move_keys,
        lambda: target.admin.execute("CLUSTER", "SETSLOT", slot, "NODE", target.node_id),
        lambda: source.admin.execute("CLUSTER", "SETSLOT", slot, "NODE", target.node_id),
    ]


@pytest.mark.parametrize("binary", redis_binaries()[:2], ids=lambda path: path.parent.name)
async def test_point_27_histories_are_exact_while_a_slot_migrates(binary: Path, tmp_path: Path) -> None:
    """Requests between all steps of a migration: no unit too many, none lost, and other slots do not notice."""
    async with (
        redis_cluster(tmp_path, binary) as cluster,
        open_link(cluster.url, deadline_ms=GENEROUS_DEADLINE_MS) as link,
        Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS) as limiter,
    ):
        for seed in range(HISTORIES):
            dice = random.Random(seed)  # noqa: S311 - the same history in every run
            moving, other = clients_of(limiter, cluster, f"moving-{seed}")
            for step in slot_migration(cluster, moving.slot):
                for _ in range(dice.randrange(4)):
                    await moving.ask(dice.randrange(1, 5))
                    await other.ask(1)
                await step()

            async def decided_by_redis(client: Client = moving) -> bool:
                return await client.ask(1) in {"redis", "local-deny"}

            await wait_until(decided_by_redis, "the slot has arrived")
            for _ in range(12):
                await moving.ask(dice.randrange(1, 5))
                await other.ask(1)
            assert other.sources <= {"redis", "local-deny"}
            await moving.is_as_counted()
            await other.is_as_counted()


async def test_point_27_histories_are_exact_over_a_failover(tmp_path: Path) -> None:
    """A master is lost: its subjects are refused until the replica goes on with what was counted; others go on."""
    async with (
        redis_cluster(tmp_path, redis_binaries()[0], replicas=1) as cluster,
        open_link(cluster.url, deadline_ms=GENEROUS_DEADLINE_MS) as link,
        Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS) as limiter,
    ):
        for member in cluster.masters:
            await member.admin.execute("CONFIG", "SET", "cluster-require-full-coverage", "no")
        dice = random.Random(1)  # noqa: S311 - the same history in every run
        lost, other = clients_of(limiter, cluster, "failover")
        for _ in range(6):
            await lost.ask(dice.randrange(1, 3))
            await other.ask(1)
        await cluster.masters[0].admin.execute("WAIT", 1, 5000, deadline_ms=6000)
        os.kill(cluster.masters[0].server.pid, signal.SIGKILL)

        async def decided_by_the_replica() -> bool:
            await other.ask(1)
            return await lost.ask(1) == "redis"

        await wait_until(decided_by_the_replica, "the replica decides", seconds=40)
        for _ in range(40):
            await lost.ask(dice.randrange(1, 4))
        assert "closed" in lost.sources
        assert other.sources <= {"redis", "local-deny"}
        await lost.is_as_counted()
        await other.is_as_counted()

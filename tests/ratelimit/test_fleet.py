"""The limiter on a real Cluster and behind a real Sentinel."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from server.development import free_port
from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.policies import subject_prefix
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.support.redis_fleet import PASSWORD, follows, password_server, redis_cluster, sentinel_server
from tests.support.redis_servers import open_link, redis_binaries
from tests.support.waiting import wait_until

every_version = pytest.mark.parametrize("binary", redis_binaries(), ids=lambda path: path.parent.name)

TIGHT = Policy("tight", 2, 600_000)
WIDE = Policy("wide", 100, 600_000)


@every_version
async def test_point_10_a_cluster_is_all_or_nothing_too(binary: Path, tmp_path: Path) -> None:
    """Subjects of three nodes in one request: what one node refuses, the others give back."""
    async with redis_cluster(tmp_path, binary) as cluster, open_link(cluster.url) as link:
        limiter = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
        subjects = ["user:1"]
        nodes = {cluster.owner_of(subject_prefix("user:1").decode()).node_id}
        for number in range(2, 200):
            node = cluster.owner_of(subject_prefix(f"user:{number}").decode()).node_id
            if node not in nodes:
                nodes.add(node)
                subjects.append(f"user:{number}")
        assert len(subjects) == 3
        charges = [Charge(WIDE if n else TIGHT, "g", subject) for n, subject in enumerate(subjects)]
        decisions = [await limiter.decide(charges) for _ in range(3)]
        assert [True, True, False] == [decision.allowed for decision in decisions]

        async def given_back() -> bool:
            left = (await limiter.peek(charges)).verdicts
            return [0, 98, 98] == [verdict.remaining for verdict in left]

        await wait_until(given_back, "what was charged elsewhere is given back")
        charged = [Charge(WIDE, "both", subjects[0], 3), Charge(WIDE, "both", subjects[1], 4)]
        await limiter.decide(charged, request_id="one")
        assert [7, 0] == [await limiter.refund(charged, request_id="one") for _ in range(2)]
        await limiter.close()


@every_version
async def test_point_19_a_node_that_is_down_is_down_for_its_subjects_only(
    binary: Path, tmp_path: Path
) -> None:
    """On a Cluster each node has a breaker: while one does not answer, the others go on deciding, and it recovers."""
    async with redis_cluster(tmp_path, binary) as cluster, open_link(cluster.url) as link:
        for member in cluster.masters:
            await member.admin.execute("CONFIG", "SET", "cluster-require-full-coverage", "no")
        outages: list[bool] = []
        limiter = Limiter(link, on_fallback=outages.append)
        paused = cluster.owner_of(subject_prefix("user:1").decode())
        others = [
            f"user:{number}"
            for number in range(2, 40)
            if cluster.owner_of(subject_prefix(f"user:{number}").decode()).node_id != paused.node_id
        ]

        async def source_of(*subjects: str) -> str:
            return (await limiter.decide([Charge(WIDE, "nodes", subject) for subject in subjects])).source

        os.kill(paused.server.pid, signal.SIGSTOP)
        try:
            while not outages:
                assert "open" == await source_of("user:1")
            sources = [await source_of(other) for other in others]
            both = await source_of(others[0], "user:1")
        finally:
            os.kill(paused.server.pid, signal.SIGCONT)
        assert {"redis"} == set(sources)
        assert "open" == both
        await wait_until(lambda: outages == [True, False], "the node is asked again")
        assert "redis" == await source_of("user:1")
        await limiter.close()


@every_version
async def test_point_10_a_failover_keeps_counting(binary: Path, tmp_path: Path) -> None:
    """After a failover the replica goes on with what the master had counted, and is told the scripts."""
    with (
        password_server(tmp_path / "master", binary, ('save ""',)) as master,
        password_server(tmp_path / "replica", binary, ('save ""',)) as replica,
    ):
        async with open_link(replica.url) as admin:
            await admin.execute("REPLICAOF", "127.0.0.1", master.port)
            await wait_until(lambda: follows(admin), "the replica follows")
        with sentinel_server(tmp_path / "sentinel", binary, master.port) as port:
            url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{free_port()},127.0.0.1:{port}/mymaster/0"
            async with open_link(url) as link:
                limiter = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
                charge = Charge(TIGHT, "g", "user:1")
                assert (await limiter.decide([charge])).verdicts[0].remaining == 1
                await link.execute("WAIT", 1, 5000, deadline_ms=6000)
                os.kill(master.pid, signal.SIGKILL)

                async def from_redis() -> bool:
                    return (await limiter.decide([Charge(WIDE, "probe", "user:1")])).source == "redis"

                await wait_until(lambda: not link.connected, "the loss is noticed")
                await wait_until(from_redis, "the replica decides", seconds=40)
                decisions = [await limiter.decide([charge]) for _ in range(2)]
                assert [True, False] == [decision.allowed for decision in decisions]
                await limiter.close()

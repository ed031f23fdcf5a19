"""A real Redis Cluster, and a real Sentinel with a master and a replica."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from redis.crc import key_slot

from bench.harness.cluster import port_of_node
from server.development import EmbeddedServer, free_port, redis_server
from server.stores.redis.link import RedisLink
from tests.support.redis_servers import open_link
from tests.support.waiting import WAIT_SECONDS, wait_until

PASSWORD = "fleet"
NODE_TIMEOUT_MS = 800


@dataclass(frozen=True)
class ClusterMember:
    """A node of a test's Cluster, its id, and a link straight to it."""

    server: EmbeddedServer
    node_id: str
    admin: RedisLink


@dataclass(frozen=True)
class TestCluster:
    """Three masters, each with a third of the slots, and replicas of none, of the first, or of each of them."""

    __test__ = False

    masters: list[ClusterMember]
    replicas: list[ClusterMember]

    @property
    def url(self) -> str:
        """Names one node that is there and one that is not."""
        return f"redis+cluster://:{PASSWORD}@127.0.0.1:{free_port()},127.0.0.1:{self.masters[1].server.port}"

    def owner_of(self, key: str) -> ClusterMember:
        """The master that had the key's slot at the start."""
        return self.masters[min(key_slot(key.encode()) * 3 // 16384, 2)]


def key_of_master(number: int) -> str:
    """A key in the first slots of the master with that number, counted from 0."""
    return next(f"key{n}" for n in range(1000) if key_slot(f"key{n}".encode()) * 3 // 16384 == number)


@contextlib.asynccontextmanager
async def redis_cluster(
    folder: Path, binary: Path, *, replicas: int = 0, options: Sequence[str] = ()
) -> AsyncIterator[TestCluster]:
    """A running Cluster whose state is ok.

    Args:
        folder: for its servers' files.
        binary: the server.
        replicas: how many masters have one, counted from the first.
        options: more settings.
    """
    options = ("cluster-enabled yes", f"cluster-node-timeout {NODE_TIMEOUT_MS}", 'save ""', *options)
    async with contextlib.AsyncExitStack() as stack:
        members = []
        for number in range(3 + replicas):
            server = stack.enter_context(password_server(folder / str(number), binary, options))
            admin = await stack.enter_async_context(open_link(server.url, deadline_ms=10_000))
            node_id = (await admin.execute("CLUSTER", "MYID")).decode()
            members.append(ClusterMember(server, node_id, admin))
        for number, member in enumerate(members[:3]):
            slots = [slot for slot in range(16384) if min(slot * 3 // 16384, 2) == number]
            await member.admin.execute("CLUSTER", "ADDSLOTS", *slots)
            await member.admin.execute("CONFIG", "SET", "cluster-replica-validity-factor", 0)
        for member in members[1:]:
            await members[0].admin.execute("CLUSTER", "MEET", "127.0.0.1", member.server.port)
        await wait_until(lambda: _agree(members), "the cluster is up")
        for master, member in zip(members, members[3:], strict=False):
            await member.admin.execute("CLUSTER", "REPLICATE", master.node_id)
        for member in members[3:]:
            await wait_until(lambda member=member: follows(member.admin), "the replica follows")  # type: ignore[misc]
        yield TestCluster(members[:3], members[3:])


@contextlib.contextmanager
def password_server(folder: Path, binary: Path, options: Sequence[str] = ()) -> Iterator[EmbeddedServer]:
    """A server with the fleet's password, on a port that leaves room for a Cluster's second one."""
    folder.mkdir(parents=True)
    (folder / "password").write_text(PASSWORD)
    port = port_of_node()
    ours = (f"masterauth {PASSWORD}", "repl-diskless-sync-delay 0", *options)
    with redis_server(folder, binary=binary, port=port, options=ours) as server:
        yield server


async def _agree(members: list[ClusterMember]) -> bool:
    infos = await asyncio.gather(*(member.admin.execute("CLUSTER", "INFO") for member in members))
    known = f"cluster_known_nodes:{len(members)}".encode()
    return all(b"cluster_state:ok" in info and known in info for info in infos)


async def follows(link: RedisLink) -> bool:
    """Whether the server is a replica that has its master's data."""
    role = await link.execute("ROLE")
    return bool(role[0] == b"slave" and role[3] == b"connected")


@contextlib.contextmanager
def sentinel_server(folder: Path, binary: Path, master_port: int) -> Iterator[int]:
    """A Sentinel that watches a master by the name of `mymaster`; its port."""
    folder.mkdir(parents=True)
    port = free_port()
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f'dir "{folder}"',
        f"sentinel monitor mymaster 127.0.0.1 {master_port} 1",
        f"sentinel auth-pass mymaster {PASSWORD}",
        "sentinel down-after-milliseconds mymaster 500",
        "sentinel failover-timeout mymaster 2000",
    ]
    configuration = folder / "sentinel.conf"
    configuration.write_text("\n".join(lines) + "\n")
    with (folder / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([binary, configuration, "--sentinel"], stdout=log, stderr=log)
    try:
        deadline = monotonic() + WAIT_SECONDS
        while b"+monitor master" not in (folder / "sentinel.log").read_bytes():
            assert monotonic() < deadline, "the Sentinel did not start"
            sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait(10)

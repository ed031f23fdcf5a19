"""A real Cluster of three masters: commands find their node, wherever their slot goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from redis.asyncio.cluster import NodesManager
from redis.crc import key_slot

from server.stores.redis.cluster import RedisCluster, slot_of
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from tests.support.redis_fleet import TestCluster, key_of_master, redis_cluster
from tests.support.redis_scripted import ScriptedServer, reply_to
from tests.support.redis_servers import (
    ADD,
    answers,
    let_the_loop_write,
    open_link,
    redis_binaries,
    refusal,
    script_of,
)
from tests.support.waiting import wait_until

every_version = pytest.mark.parametrize("binary", redis_binaries(), ids=lambda path: path.parent.name)


async def give_slot(cluster: TestCluster, key: str, number: int) -> None:
    """Move the slot of a key that does not exist yet to another master, behind the link's back."""
    for member in cluster.masters:
        await member.admin.execute(
            "CLUSTER", "SETSLOT", key_slot(key.encode()), "NODE", cluster.masters[number].node_id
        )


@every_version
async def test_keys_and_scripts_everywhere(binary: Path, tmp_path: Path) -> None:
    """Commands, scripts and pings work on all masters, though the URL names one of them and a dead one."""
    async with redis_cluster(tmp_path, binary) as cluster, open_link(cluster.url) as link:
        assert link.connected
        keys = [f"key{number}" for number in range(300)]
        await asyncio.gather(*(link.submit("SET", key, key) for key in keys))
        replies = await asyncio.gather(*(link.execute("GET", key) for key in keys))
        assert [key.encode() for key in keys] == replies
        counts = [await member.admin.execute("DBSIZE") for member in cluster.masters]
        assert sum(counts) == 300
        assert min(counts) > 0
        sums = await asyncio.gather(*(link.run_script(ADD, [f"sum{number}"], [1]) for number in range(60)))
        assert sums == [1] * 60
        assert await link.ping() > 0
        with pytest.raises(RedisReplyError, match="CROSSSLOT"):
            await link.execute("MGET", *(key_of_master(number) for number in range(3)))


@every_version
async def test_moved_slot(binary: Path, tmp_path: Path) -> None:
    """A command whose slot went to another master is redirected there, and the next ones go straight."""
    async with redis_cluster(tmp_path, binary) as cluster, open_link(cluster.url) as link:
        key = key_of_master(0)
        await give_slot(cluster, key, 2)
        assert await asyncio.gather(*(link.execute("INCR", key) for _ in range(20))) == list(range(1, 21))
        assert await link.run_script(ADD, [key], [1]) == 21
        await cluster.masters[0].admin.execute("CONFIG", "RESETSTAT")
        assert await link.execute("INCR", key) == 22
        statistics = await cluster.masters[0].admin.execute("INFO", "commandstats")
        assert b"cmdstat_incr" not in statistics
        assert link.status.last_error is None


@every_version
async def test_migrating_slot(binary: Path, tmp_path: Path) -> None:
    """While a slot migrates, ASK is followed for keys that went, and keys on both sides are `tryagain`."""
    async with redis_cluster(tmp_path, binary) as cluster, open_link(cluster.url) as link:
        key = f"{{{key_of_master(0)}}}"
        source, target = cluster.masters[0], cluster.masters[1]
        slot = key_slot(key.encode())
        await link.execute("SET", f"{key}stays", "here")
        await target.admin.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
        await source.admin.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)
        assert await link.execute("SET", f"{key}goes", "there") == b"OK"
        replies = await asyncio.gather(link.execute("GET", f"{key}stays"), link.execute("GET", f"{key}goes"))
        assert list(replies) == [b"here", b"there"]
        assert await link.run_script(ADD, [f"{key}sum"], [2]) == 2
        error = await refusal(link.execute("MGET", f"{key}stays", f"{key}goes"))
        assert (error.reason, error.outcome_unknown) == ("tryagain", False)


@every_version
async def test_failover(binary: Path, tmp_path: Path) -> None:
    """A master dies: its slots are refused until its replica is elected, and then served."""
    async with redis_cluster(tmp_path, binary, replicas=1) as cluster, open_link(cluster.url) as link:
        lost, other = key_of_master(0), key_of_master(1)
        await cluster.masters[0].admin.execute("SET", lost, "before")
        await cluster.masters[0].admin.execute("WAIT", 1, 5000)
        os.kill(cluster.masters[0].server.pid, signal.SIGKILL)
        await wait_until(lambda: not link.connected, "the loss is noticed")
        assert not (await refusal(link.execute("GET", lost))).outcome_unknown
        await wait_until(lambda: link.connected, "the replica has taken over", seconds=40)
        assert await link.execute("GET", lost) == b"before"
        assert await link.execute("SET", other, "x") == b"OK"


async def test_a_node_that_is_new_is_being_connected_at_once(tmp_path: Path) -> None:
    """Whoever asks it meanwhile, as in a failover, is refused as before; the link was started after all."""
    async with redis_cluster(tmp_path, redis_binaries()[0]) as cluster, open_link(cluster.url) as link:
        key, nodes = key_of_master(0), link._route
        port = cluster.masters[0].server.port
        assert isinstance(nodes, RedisCluster)

        async def forget_node() -> None:
            await nodes._nodes.pop(("127.0.0.1", port)).close()

        await forget_node()
        future = asyncio.get_running_loop().create_future()
        moved = RedisReplyError(f"MOVED {key_slot(key.encode())} 127.0.0.1:{port}")
        nodes._redirect("127.0.0.1", future, ("GET", key), 10.0, 0, moved)
        error = await refusal(link.execute("GET", key))
        assert ("closed", False) == (error.reason, error.outcome_unknown)
        assert None is await future
        assert None is await link.execute("GET", key)

        await forget_node()
        refresh = asyncio.create_task(nodes._refresh())
        while not refresh.done():
            with contextlib.suppress(RedisUnavailable):
                await link.execute("GET", key)
            await asyncio.sleep(0)
        assert None is await link.execute("GET", key)


async def test_slots_without_a_master(tmp_path: Path) -> None:
    """A Cluster that lost a master for good says `clusterdown`: nothing was executed."""
    async with redis_cluster(tmp_path, redis_binaries()[0]) as cluster, open_link(cluster.url) as link:
        os.kill(cluster.masters[0].server.pid, signal.SIGKILL)
        key = key_of_master(1)

        async def down() -> bool:
            if await answers(link):
                return False
            error = await refusal(link.execute("SET", key, 1))
            assert not error.outcome_unknown
            return error.reason == "clusterdown"

        await wait_until(down, "the cluster is down")
        assert not link.connected


async def test_no_node_answers() -> None:
    """Without any node the start returns, and calls are refused at once."""
    async with open_link("redis+cluster://127.0.0.1:1,127.0.0.1:2") as link:
        error = await refusal(link.execute("GET", "key"))
        assert (error.reason, error.outcome_unknown) == ("refused", False)
        assert (await refusal(link.submit("PING"))).reason == "refused"
        assert link.status.last_error == "refused"


async def test_close_while_the_topology_is_asked_for() -> None:
    """Closing ends the link also if what asks for the topology swallows the cancellation, as redis-py may."""

    class Stubborn:
        async def ask(self) -> list[None]:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            return [None] * 16384

    link = RedisLink("redis+cluster://127.0.0.1:1")
    link._route._topology = Stubborn()  # type: ignore[attr-defined]
    starting = asyncio.create_task(link.start())
    await let_the_loop_write()
    await asyncio.wait_for(link.close(), 60)
    await starting
    assert "closed" == (await refusal(link.execute("GET", "key"))).reason


async def test_close_in_the_middle(tmp_path: Path) -> None:
    """Closing fails what is pending on any node and leaves no task behind."""
    async with redis_cluster(tmp_path, redis_binaries()[0]) as cluster:
        before = asyncio.all_tasks()
        async with open_link(cluster.url) as link:
            await give_slot(cluster, key_of_master(0), 1)
            futures = [link.submit("GET", key_of_master(number)) for number in range(3)]
            await asyncio.sleep(0)
            await link.close()
            assert {"closed"} == {(await refusal(future)).reason for future in futures}
            assert asyncio.all_tasks() == before


class ScriptedNode:
    """Names the only master of a Cluster, by default itself; it answers GET as it is told, and counts that."""

    def __init__(self) -> None:
        self.answer = b"$-1\r\n"
        self.master: ScriptedNode = self
        self.gets = 0
        self.server = ScriptedServer([4096], [0], [], reply=self.reply)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server.url.rpartition(":")[2])

    def link(self, **options: object) -> contextlib.AbstractAsyncContextManager[RedisLink]:
        """A link to the Cluster that it is."""
        return open_link(self.server.url.replace("redis", "redis+cluster", 1), **options)  # type: ignore[arg-type]

    def reply(self, command: list[bytes]) -> bytes:
        """What it answers."""
        match command[0].upper(), command[-1].upper():
            case b"CLUSTER", b"SLOTS":
                return (
                    b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$1\r\nn\r\n"
                    % self.master.port
                )
            case b"GET", _:
                self.gets += 1
                return self.answer
            case _:
                return reply_to(command)


async def test_redirections_have_an_end() -> None:
    """A node that says of a slot that it has moved to itself is believed five times, and that is that."""
    node = ScriptedNode()
    async with node.server.running(), node.link() as link:
        node.answer = b"-MOVED %d 127.0.0.1:%d\r\n" % (key_slot(b"key"), node.port)
        error = await refusal(link.execute("GET", "key"))
        assert ("moved", False, 6) == (error.reason, error.outcome_unknown, node.gets)


async def test_a_close_while_the_map_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends everything, also where the library that asks takes the cancellation for an error and goes on."""
    ask, is_asking = NodesManager.initialize, asyncio.Event()

    async def ask_on(manager: NodesManager) -> None:
        is_asking.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await ask(manager)

    node = ScriptedNode()
    async with node.server.running():
        async with node.link() as link:
            monkeypatch.setattr(NodesManager, "initialize", ask_on)
            node.answer = b"-MOVED %d 127.0.0.1:%d\r\n" % (key_slot(b"key"), node.port)
            await refusal(link.execute("GET", "key"))
            await is_asking.wait()
        await wait_until(lambda: node.server.open == 0, "no connection is left")


@pytest.mark.parametrize("word", ["MOVED", "ASK"])
async def test_a_redirection_without_a_host(word: str) -> None:
    """A node that does not know what others are called names only a port: it is one of the node's own host."""
    node, other = ScriptedNode(), ScriptedNode()
    async with node.server.running(), other.server.running(), node.link() as link:
        node.answer = b"-%s %d :%d\r\n" % (word.encode(), key_slot(b"key"), other.port)
        other.answer = b"$4\r\nhere\r\n"
        assert b"here" == await link.execute("GET", "key")
        assert (1, 1) == (node.gets, other.gets)


async def test_a_node_that_is_no_master_any_more_is_left() -> None:
    """Its connection is closed once it has had the time to answer; it asks for the map, and for nothing else."""
    node, other = ScriptedNode(), ScriptedNode()
    async with node.server.running(), other.server.running(), node.link(stall_limit_ms=50) as link:
        assert node.server.open == 1
        node.master = other.master = other
        other.answer = b"$4\r\nhere\r\n"
        node.answer = b"-MOVED %d 127.0.0.1:%d\r\n" % (key_slot(b"key"), other.port)
        assert b"here" == await link.execute("GET", "key")
        await wait_until(lambda: node.server.open == 0, "the connection is closed")
        assert link.connected


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a{tag}b"), b"tag"),
        ((b"get", b"key"), b"key"),
        (("EVALSHA", script_of(b"").sha1, 2, "first", "second", "argument"), b"first"),
        (("OBJECT", "ENCODING", "key"), b"key"),
        (("EVAL", "return 1", 0), None),
        (("SCRIPT", "LOAD", "return 1"), None),
        (("PING",), None),
        (("SET", 17, 1), b"17"),
    ],
)
def test_slot_of_a_command(command: tuple[str | bytes | int, ...], key: bytes | None) -> None:
    """The slot is that of the first key's hash tag, wherever the command has its keys."""
    assert slot_of(command) == (None if key is None else key_slot(key))

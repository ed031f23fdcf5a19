"""A Redis Cluster: a connection to each master; a command goes to the one that has its key's slot.

Redirections are followed. One task asks for the map of slots again whenever a node answers MOVED or is lost, or a slot
has no master. Until then a redirected slot is remembered from the redirection itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Coroutine

from redis.asyncio.cluster import ClusterNode, NodesManager
from redis.asyncio.connection import Connection, SSLConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from .address import Node, RedisAddress
from .errors import Argument, RedisReplyError, RedisUnavailable, Reply, fail
from .events import get_logger
from .node import Dialler, LinkContext, RedisNode, backoff_seconds, reason_of
from .protocol import Command

NUMBER_OF_SLOTS = REDIS_CLUSTER_HASH_SLOTS

# The key is the second word of a command, but for these.
_KEYLESS = frozenset(
    b"ACL AUTH CLIENT CLUSTER COMMAND CONFIG DBSIZE ECHO FLUSHALL FLUSHDB FUNCTION INFO LASTSAVE LATENCY"
    b" MODULE PING RANDOMKEY ROLE SAVE SCAN SCRIPT SLOWLOG TIME WAIT".split()
)
_AFTER_A_SUBCOMMAND = frozenset(b"DEBUG MEMORY OBJECT XGROUP XINFO".split())
_AFTER_A_COUNT = frozenset(b"EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO".split())


def slot_of(command: Command) -> int | None:
    """Return the slot of a command's first key; None if it has no key and any node will do.

    See https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model.
    """
    name = _bytes(command[0]).upper()
    if name in _KEYLESS:
        return None
    position = 1
    if name in _AFTER_A_COUNT:
        if int(command[2]) == 0:
            return None
        position = 3
    elif name in _AFTER_A_SUBCOMMAND:
        position = 2
    return key_slot(_bytes(command[position])) if len(command) > position else None


def _bytes(argument: Argument) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()


class Topology:
    """Finds the masters of a Cluster, by redis-py, from any node that answers.

    Args:
        address: its first nodes.
        dialler: has the options of a connection to a node.
        timeout_seconds: for the answer of one node.
    """

    def __init__(self, address: RedisAddress, dialler: Dialler, timeout_seconds: float) -> None:
        kind = SSLConnection if address.tls else Connection
        options = {**dialler.connection_options(), "connection_class": kind}
        nodes = [ClusterNode(host, port, **options) for host, port in address.nodes]
        self._manager = NodesManager(nodes, require_full_coverage=False, connection_kwargs=options)
        self._timeout = timeout_seconds

    async def ask(self) -> list[Node | None]:
        """Return the master of each slot; None for a slot without one.

        Raises:
            RedisClusterException, RedisError, OSError: no node answers.
        """
        try:
            async with asyncio.timeout(self._timeout * (len(self._manager.startup_nodes) + 1)):
                await self._manager.initialize()
            masters: list[Node | None] = [None] * NUMBER_OF_SLOTS
            for slot, nodes in self._manager.slots_cache.items():
                masters[slot] = (nodes[0].host, int(nodes[0].port))
            return masters
        finally:  # it asks seldom: no connection is kept for the next time
            for kept in ("nodes_cache", "startup_nodes"):
                with contextlib.suppress(RedisError, OSError):
                    await self._manager.aclose(kept)


log = get_logger(__name__)

MOST_REDIRECTIONS = 5
# Why a command is refused whose slot has no master, while nodes answer.
_NO_MASTER = "clusterdown"
# Between two questions for the map of slots while some nodes answer: a replica may take over at any moment, and until
# all workers have found it, those that have read what the others could not invalidate yet.
LONGEST_PAUSE_SECONDS = 0.5


class RedisCluster:
    """The nodes of a Cluster, behind the interface of one.

    Args:
        address: its first nodes.
        dialler: connects to a node.
        context: what its nodes share.
    """

    def __init__(
        self,
        address: RedisAddress,
        dialler: Dialler,
        context: LinkContext,
    ) -> None:
        self._name = str(address)
        self._dialler = dialler
        self._context = context
        self._topology = Topology(address, dialler, context.verify_seconds)
        self._nodes: dict[Node, RedisNode] = {}
        self._masters: list[RedisNode | None] = [None] * NUMBER_OF_SLOTS
        self._refusal = "starting"
        self._is_closed = False
        self._outdated = asyncio.Event()
        self._first_try = asyncio.Event()
        self._maintenance: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether every slot has a master that commands can be sent to."""
        return None not in self._masters and all(node.connected for node in self._nodes.values())

    async def start(self) -> None:
        """Return when all masters are connected, or after the first failed try."""
        if self._maintenance is None:
            self._maintenance = asyncio.create_task(self._maintain(), name=f"redis cluster {self._name}")
        await self._first_try.wait()

    async def close(self) -> None:
        """Cut all connections; unanswered commands fail with the reason `closed`."""
        self._refusal = "closed"
        self._is_closed = True
        tasks = [*self._tasks, *([self._maintenance] if self._maintenance else [])]
        for task in tasks:
            task.cancel()
        nodes, self._nodes = list(self._nodes.values()), {}
        self._masters = [None] * NUMBER_OF_SLOTS
        await asyncio.gather(*(node.close() for node in nodes))
        if tasks:
            await asyncio.wait(tasks)

    def send(self, command: Command, seconds: float) -> asyncio.Future[Reply]:
        """Send a command to the master of its key's slot; the future has failed already if there is none.

        Raises:
            RuntimeError: the link was never started.
        """
        slot = slot_of(command)
        node = self._any_master() if slot is None else self._masters[slot]
        if node is not None:
            return node.send(command, seconds)
        if self._maintenance is None:
            raise RuntimeError("the link to Redis was not started: await its start() first")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        fail(future, RedisUnavailable(self._refusal))
        return future

    def node_of(self, key: bytes) -> str:
        """Return the name of the master that has a key at present; empty if its slot has none."""
        node = self._masters[key_slot(key)]
        return "" if node is None else node.name

    def broadcast(self, command: Command, seconds: float) -> list[asyncio.Future[Reply]]:
        """Send a command to every master."""
        return [node.send(command, seconds) for node in self._nodes.values()]

    def _any_master(self) -> RedisNode | None:
        return next((node for node in self._nodes.values() if node.connected), None)

    async def _maintain(self) -> None:
        attempt = 0
        while not self._is_closed:
            self._outdated.clear()
            await self._refresh()
            self._first_try.set()
            if self.connected:
                attempt = 0
                await self._outdated.wait()
            is_alive = self._refusal == _NO_MASTER
            await asyncio.sleep(
                backoff_seconds(attempt, LONGEST_PAUSE_SECONDS) if is_alive else backoff_seconds(attempt)
            )
            attempt += 1

    async def _refresh(self) -> None:
        try:
            masters = await self._topology.ask()
            if (
                self._is_closed
            ):  # and the cancellation was lost in there: nothing else would end what begins here
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be asked again
            reason = reason_of(error)
            self._context.status.fault(reason)
            if self._refusal != reason:
                log.warning("redis.topology_unknown", server=self._name, error=reason, detail=str(error))
            self._refusal = reason
            return
        self._refusal = _NO_MASTER
        found = {master for master in masters if master is not None}
        for address in found - self._nodes.keys():
            self._add(address)
        # Before commands are sent there: what is refused meanwhile would count as a failure of a node that is well.
        await asyncio.gather(*(self._nodes[address].start() for address in found))
        if self._is_closed:
            return
        gone = [self._nodes.pop(address) for address in self._nodes.keys() - found]
        self._masters = [None if master is None else self._nodes[master] for master in masters]
        for node in gone:
            self._run(self._retire(node))

    def _add(self, address: Node) -> RedisNode:
        node = self._nodes[address] = RedisNode(
            f"{address[0]}:{address[1]}",
            functools.partial(self._dialler.dial, node=address),
            self._context,
            on_lost=self._outdated.set,
            on_redirect=functools.partial(self._redirect, address[0]),
        )
        node.begin()  # commands find it in this very turn of the loop
        return node

    async def _retire(self, node: RedisNode) -> None:
        """Let a node that is no master any more answer what it was asked, then close it."""
        try:
            await asyncio.sleep(self._context.stall_seconds)
        finally:
            await node.close()

    def _redirect(
        self,
        sender: str,
        future: asyncio.Future[Reply],
        command: Command,
        seconds: float | None,
        redirections: int,
        error: RedisReplyError,
    ) -> None:
        """Follow `MOVED slot host:port` or `ASK slot host:port`; without a host it is the sender's."""
        if redirections >= MOST_REDIRECTIONS:
            fail(future, RedisUnavailable("moved"))
            return
        _, slot, where = error.message.split(" ", 2)
        host, _, port = where.rpartition(":")
        address = (host or sender, int(port))
        node = self._nodes.get(address) or self._add(address)
        owns = None if error.code == "ASK" else int(slot)
        if owns is not None:
            self._outdated.set()
        self._run(self._resend(node, future, command, seconds, redirections + 1, owns=owns))

    async def _resend(
        self,
        node: RedisNode,
        future: asyncio.Future[Reply],
        command: Command,
        seconds: float | None,
        redirections: int,
        *,
        owns: int | None,
    ) -> None:
        """Send a command again. Args: owns: the slot that the node is said to have; None if it is only on its way."""
        try:
            await node.start()  # a node that we did not know is connected first
        except asyncio.CancelledError:
            if not future.done():
                fail(future, RedisUnavailable("closed"))
            raise
        if owns is not None and not self._is_closed:
            self._masters[owns] = node
        if future.done():
            return
        if owns is None:
            node.send(("ASKING",))
        node.send(command, seconds, future=future, redirections=redirections)

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

"""Which Cluster node a command belongs to: the slot of its key, and the master of every slot."""

from __future__ import annotations

import asyncio
import contextlib

from redis.asyncio.cluster import ClusterNode, NodesManager
from redis.asyncio.connection import Connection, SSLConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from server.stores.redis.address import Node, RedisAddress
from server.stores.redis.commands import Command
from server.stores.redis.dial import Dialler
from server.stores.redis.errors import Argument

NUMBER_OF_SLOTS = REDIS_CLUSTER_HASH_SLOTS

# The key is the second word of a command, but for these.
_KEYLESS = frozenset(
    b"ACL AUTH CLIENT CLUSTER COMMAND CONFIG DBSIZE ECHO FLUSHALL FLUSHDB FUNCTION INFO LASTSAVE LATENCY"
    b" MODULE PING RANDOMKEY ROLE SAVE SCAN SCRIPT SLOWLOG TIME WAIT".split()
)
_AFTER_A_SUBCOMMAND = frozenset(b"DEBUG MEMORY OBJECT XGROUP XINFO".split())
_AFTER_A_COUNT = frozenset(b"EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO".split())


def slot_of(command: Command) -> int | None:
    """The slot of a command's first key; None if it has no key and any node will do.

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
    """What redis-py finds out about a Cluster, asking any node that answers.

    Args:
        address: its first nodes.
        dialler: knows how to connect to a node.
        timeout_seconds: for the answer of one node.
    """

    def __init__(self, address: RedisAddress, dialler: Dialler, timeout_seconds: float) -> None:
        kind = SSLConnection if address.tls else Connection
        options = {**dialler.connection_options(), "connection_class": kind}
        nodes = [ClusterNode(host, port, **options) for host, port in address.nodes]
        self._manager = NodesManager(nodes, require_full_coverage=False, connection_kwargs=options)
        self._timeout = timeout_seconds

    async def ask(self) -> list[Node | None]:
        """The master of each slot, None where a slot has none.

        Raises:
            RedisClusterException, RedisError, OSError: no node tells.
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

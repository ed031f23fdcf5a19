"""A real Redis Cluster of some masters, without replicas."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench.harness.world import REDIS_OPTIONS
from server.development import EmbeddedServer, free_port, redis_server
from server.errors import CommandError

_SLOTS = 16384
_START_SECONDS = 30
_BUS_OFFSET = 10_000
_HIGHEST_PORT = 65_535 - _BUS_OFFSET


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running Cluster: its URL, and its masters."""

    url: str
    masters: tuple[EmbeddedServer, ...]


@contextlib.contextmanager
def redis_cluster(folder: Path, masters: int) -> Iterator[Cluster]:
    """A Cluster whose state is ok, as long as the block lasts.

    Args:
        folder: for its servers' files.
        masters: how many; each has as many slots.

    Raises:
        CommandError: it did not come up.
    """
    options = ("cluster-enabled yes", *REDIS_OPTIONS)
    password = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(masters):
            (folder / str(number)).mkdir(parents=True)
            (folder / str(number) / "password").write_text(password)
            server = redis_server(folder / str(number), port=port_of_node(), options=options)
            servers.append(stack.enter_context(server))
        clients: list[Any] = [
            stack.enter_context(closing(redis.Redis.from_url(server.url))) for server in servers
        ]
        for number, client in enumerate(clients):
            first, last = number * _SLOTS // masters, (number + 1) * _SLOTS // masters - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port)
        until = time.monotonic() + _START_SECONDS
        while not all(_is_up(client, masters) for client in clients):
            if time.monotonic() > until:
                raise CommandError("the Redis Cluster did not come up")
            time.sleep(0.05)
        yield Cluster(f"redis+cluster://:{password}@127.0.0.1:{servers[0].port}", tuple(servers))


def port_of_node() -> int:
    """A free port whose node can listen for the other nodes, too: that is 10,000 above."""
    while True:
        port = free_port()
        if port > _HIGHEST_PORT:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port + _BUS_OFFSET))
            return port


def _is_up(client: Any, masters: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    text = info if isinstance(info, str) else "".join(f"{key}:{value}\n" for key, value in info.items())
    return "cluster_state:ok" in text and f"cluster_known_nodes:{masters}" in text

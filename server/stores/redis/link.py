"""The request path to Redis: one shared connection for each server; commands of one loop tick are written together.

No call waits for a connection: without one, or with too many commands unanswered, it fails at once. A deadline ends the
call, never the connection. The error says whether the command may have been executed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Protocol

from .address import parse_redis_url
from .cluster import RedisCluster
from .deadlines import Deadlines
from .errors import Argument, RedisReplyError, RedisUnavailable, Reply
from .node import Dialler, LinkContext, LinkStatus, RedisNode
from .protocol import Command, PreparedCommand, ScriptCall
from .scripts import Script

__all__ = ["Link", "LinkStatus", "RedisLink", "RedisReplyError", "RedisUnavailable", "Reply"]
_LEAST_PARTS = 5


class Route(Protocol):
    """How commands get to the server that has their keys."""

    @property
    def connected(self) -> bool:
        """Whether every key can be reached."""

    async def start(self) -> None:
        """Return when connected or after the first failed try."""

    async def close(self) -> None:
        """Cut all connections."""

    def send(self, command: Command, seconds: float) -> asyncio.Future[Reply]:
        """Send a command where it belongs; Redis may take so many seconds from the write on."""

    def node_of(self, key: bytes) -> str:
        """Return the name of the server that has a key."""

    def broadcast(self, command: Command, seconds: float) -> list[asyncio.Future[Reply]]:
        """Send a command to every master."""


class Link(Protocol):
    """What the rate limiter needs of a link: a `RedisLink`, or memory with the same interface."""

    @property
    def is_cluster(self) -> bool:
        """Whether keys live on several servers."""

    async def start(self) -> None:
        """Return once connected or after the first failed try."""

    async def close(self) -> None:
        """End the link."""

    async def execute(self, *command: Argument, deadline_ms: float | None = None) -> Reply:
        """Send a command and return the reply."""

    def begin(self, call: ScriptCall, *, deadline_ms: float | None = None) -> Awaitable[Reply]:
        """Run a script that the server has got, nearly always; otherwise the reply is the error `NOSCRIPT`."""

    async def run(self, call: ScriptCall, *, deadline_ms: float | None = None) -> Reply:
        """Run a script and return its reply."""

    async def run_script(
        self,
        script: Script,
        keys: Sequence[bytes | str],
        args: Sequence[Argument],
        *,
        deadline_ms: float | None = None,
    ) -> Reply:
        """Run a script once and return its reply."""

    def node_of(self, key: bytes) -> str:
        """Return the name of the server that has a key now."""


class RedisLink:
    """Redis: one server, a master named by Sentinel, or a Cluster.

    All callers share a connection. So blocking commands, subscriptions and MULTI do not belong here.

    Args:
        url: see `parse_redis_url`.
        deadline_ms: how long Redis may take for a call, from the write on.
        connect_timeout_ms: how long a connection may take, its handshake included.
        backlog: how many commands may be without a reply, for each server.
        stall_limit_ms: a connection whose oldest command waits longer is cut and made anew.
        verify_tls: check the certificate and the name of a `rediss://` server.
        on_round_trip: called with the seconds of each round trip; one write is one, however many commands it holds.

    Raises:
        ValueError: the URL is not one of Redis.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline_ms: float = 50,
        connect_timeout_ms: float = 500,
        backlog: int = 10_000,
        stall_limit_ms: float = 2000,
        verify_tls: bool = True,
        on_round_trip: Callable[[float], None] | None = None,
    ) -> None:
        address = parse_redis_url(url, verify_tls=verify_tls)
        self.status = LinkStatus(on_round_trip)
        self._deadlines = Deadlines(self.status.fault)
        self._deadline_seconds = deadline_ms / 1000.0
        connect_seconds = connect_timeout_ms / 1000.0
        dialler = Dialler(address, connect_seconds)
        context = LinkContext(self.status, self._deadlines, backlog, connect_seconds, stall_limit_ms / 1000.0)
        self.is_cluster = address.kind == "cluster"
        self._route: Route = (
            RedisCluster(address, dialler, context)
            if self.is_cluster
            else RedisNode(str(address), dialler.dial, context, must_be_master=address.kind == "sentinel")
        )
        self._send = self._route.send
        self._loading: dict[str, asyncio.Future[list[Reply]]] = {}

    @property
    def connected(self) -> bool:
        """Whether commands can be sent; with a Cluster, to every master."""
        return self._route.connected

    async def start(self) -> None:
        """Return once connected or after the first failed try; the link reconnects by itself from then on."""
        await self._route.start()

    async def close(self) -> None:
        """End the link; calls in flight and later ones fail with the reason `closed`."""
        await self._route.close()
        self._deadlines.close()

    def submit(self, *command: Argument, deadline_ms: float | None = None) -> asyncio.Future[Reply]:
        """Send a command with the others of this loop tick; arguments as `execute`.

        Returns a future of the reply, which may be dropped or cancelled at any time; it fails as `execute` does.

        Raises:
            TypeError: an argument is neither bytes, text nor a number.
        """
        return self._send(command, self._deadline_seconds if deadline_ms is None else deadline_ms / 1000.0)

    def submit_prepared(self, command: PreparedCommand) -> asyncio.Future[Reply]:
        """Send a command that was packed before; see `submit`."""
        return self._send(command, self._deadline_seconds)

    async def execute(self, *command: Argument, deadline_ms: float | None = None) -> Reply:
        """Send a command and return the reply.

        Args:
            command: its name and its arguments.
            deadline_ms: another than the link's.

        Raises:
            RedisUnavailable: Redis can't serve it, or not in time.
            RedisReplyError: Redis refused the command for what it is.
            TypeError: an argument is neither bytes, text nor a number.
        """
        seconds = self._deadline_seconds if deadline_ms is None else deadline_ms / 1000.0
        return await self._send(command, seconds)

    async def run_script(
        self,
        script: Script,
        keys: Sequence[bytes | str],
        args: Sequence[Argument],
        *,
        deadline_ms: float | None = None,
    ) -> Reply:
        """Run a script once and return its reply; see `run`."""
        return await self.run(ScriptCall(script, keys, args), deadline_ms=deadline_ms)

    def begin(self, call: ScriptCall, *, deadline_ms: float | None = None) -> asyncio.Future[Reply]:
        """Run a script that the server has got, nearly always; see `submit`.

        Its future fails with `NOSCRIPT` where the server has not: then nothing was executed, and `run` is the way.
        """
        return self._send(
            call.command, self._deadline_seconds if deadline_ms is None else deadline_ms / 1000.0
        )

    async def run(self, call: ScriptCall, *, deadline_ms: float | None = None) -> Reply:
        """Run a script and return its reply; a server that has not got the script is given it.

        Args:
            call: the script, its keys and its arguments.
            deadline_ms: another than the link's; it holds for the whole, loading included.

        Raises:
            RedisUnavailable: Redis can't serve it, or not in time.
            RedisReplyError: the script failed.
        """
        seconds = self._deadline_seconds if deadline_ms is None else deadline_ms / 1000.0
        began = monotonic()
        try:
            return await self._send(call.command, seconds)
        except RedisReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        await self._load(call.script, _rest(seconds, began))
        try:
            return await self._send(call.command, _rest(seconds, began))
        except RedisReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        # Flushed again since, or a node that was not reached: with its source it can't be unknown.
        return await self._send(("EVAL", call.script.source, *call.operands), _rest(seconds, began))

    def node_of(self, key: bytes) -> str:
        """Return the name of the server that has a key now, as in `RedisUnavailable.node`; empty if there is none."""
        return self._route.node_of(key)

    async def ping(self) -> float:
        """Return the milliseconds that the slowest server takes to answer.

        Raises:
            RedisUnavailable: one of them does not.
        """
        began = monotonic()
        await asyncio.gather(*self._route.broadcast(("PING",), self._deadline_seconds))
        return (monotonic() - began) * 1000.0

    async def _load(self, script: Script, seconds: float) -> None:
        """Load a script into every server, once for all concurrent calls; the next run shows whether it worked."""
        loading = self._loading.get(script.sha1)
        if loading is None:
            replies = self._route.broadcast(("SCRIPT", "LOAD", script.source), seconds)
            loading = asyncio.gather(*replies, return_exceptions=True)
            self._loading[script.sha1] = loading
            loading.add_done_callback(lambda _: self._loading.pop(script.sha1, None))
        await asyncio.wait([loading])


def _rest(seconds: float, began: float) -> float:
    """Return what is left of a deadline; a fifth at least, because a busy loop, not Redis, may have used it up."""
    return max(seconds / _LEAST_PARTS, seconds - (monotonic() - began))

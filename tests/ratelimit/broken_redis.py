"""A Redis that a test breaks in one of many ways, and mends again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import psutil

from server.development import EmbeddedServer, redis_server
from tests.support.redis_servers import open_link

Fault = Literal[
    "paused",
    "killed",
    "restarted",
    "flushed",
    "readonly",
    "out of memory",
    "loading",
    "slow by 200 ms",
    "cut in mid-reply",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)

LOADED_KEYS = 1500
LOAD_DELAY_US = 1000
FILL = "for n = 1, ARGV[1] do redis.call('SET', 'filler:' .. n, string.rep('x', 20000)) end"


@dataclass
class Proxy:
    """Stands between a client and Redis; what is wrong with the wire is set on it."""

    target: int
    port: int = 0
    delay_seconds: float = 0.0
    cuts_replies: bool = False
    _shut_out: int | None = None
    _writers: dict[int, asyncio.StreamWriter] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen for the length of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def clients(self) -> set[int]:
        """The ids of the processes that are connected."""
        return {
            process.pid
            for process in psutil.process_iter()
            if _ports_of(process.pid) & self._writers.keys() and process.pid != os.getpid()
        }

    def shut_out(self, pid: int) -> None:
        """Cut a process's connections, and refuse it from now on."""
        self._shut_out = pid
        for port in _ports_of(pid) & self._writers.keys():
            self._writers[port].transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        port = writer.get_extra_info("peername")[1]
        if self._shut_out is not None and port in _ports_of(self._shut_out):
            writer.transport.abort()
            return
        self._writers[port] = writer
        task.add_done_callback(lambda _: self._writers.pop(port, None))
        with contextlib.suppress(OSError, asyncio.CancelledError):
            async with _closing(writer):
                their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self.target)
                async with _closing(their_writer), asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(their_reader, writer, replies=True))
                    pumps.create_task(self._pump(reader, their_writer, replies=False))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if replies and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if replies and self.cuts_replies:
                    writer.write(data[:3])
                    break
                writer.write(data)
        writer.close()


def _ports_of(pid: int) -> set[int]:
    """The local ports of a process's connections; none of one that has ended."""
    with contextlib.suppress(psutil.Error):
        return {one.laddr.port for one in psutil.Process(pid).net_connections("tcp") if one.raddr}
    return set()


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@dataclass
class BreakableRedis:
    """A Redis behind a proxy.

    Attributes:
        folder: its data.
        server: the Redis behind the proxy at the moment.
        proxy: what clients connect to.
    """

    folder: Path
    server: EmbeddedServer
    proxy: Proxy
    _servers: contextlib.ExitStack

    @property
    def url(self) -> str:
        """Where a client connects."""
        return self.server.url.replace(f":{self.server.port}/", f":{self.proxy.port}/")

    async def admin(self, *command: str) -> None:
        """Send a command straight to Redis."""
        async with open_link(self.server.url, deadline_ms=10_000) as link:
            await link.execute(*command)

    async def start_again(self, *options: str) -> None:
        """Start a server in the same place with the same password."""
        starting = redis_server(self.folder, port=self.server.port, options=('save ""', *options))
        self.server = await asyncio.to_thread(self._servers.enter_context, starting)

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.server.process.kill()
        self.server.process.wait()

    @contextlib.asynccontextmanager
    async def broken_by(self, fault: Fault) -> AsyncIterator[None]:
        """It is broken inside the block, and well again after it."""
        match fault:
            case "paused":
                self.server.process.send_signal(signal.SIGSTOP)
                yield
                self.server.process.send_signal(signal.SIGCONT)
            case "killed":
                self.kill()
                yield
                await self.start_again()
            case "restarted":
                self.kill()
                await self.start_again()
                yield
            case "flushed":
                await self.admin("FLUSHALL")
                await self.admin("SCRIPT", "FLUSH")
                yield
            case "readonly":
                await self.admin("REPLICAOF", "127.0.0.1", "1")
                yield
                await self.admin("REPLICAOF", "NO", "ONE")
            case "out of memory":
                await self.admin("CONFIG", "SET", "maxmemory", "1")
                yield
                await self.admin("CONFIG", "SET", "maxmemory", "0")
            case "loading":
                await self.admin("CONFIG", "SET", "rdbcompression", "no")
                await self.admin("EVAL", FILL, "0", str(LOADED_KEYS))  # newer versions refuse DEBUG POPULATE
                await self.admin("SAVE")
                self.kill()
                starting = asyncio.create_task(self.start_again(f"key-load-delay {LOAD_DELAY_US}"))
                yield
                await starting
            case "slow by 200 ms":
                self.proxy.delay_seconds = 0.2
                yield
                self.proxy.delay_seconds = 0.0
            case "cut in mid-reply":
                self.proxy.cuts_replies = True
                yield
                self.proxy.cuts_replies = False


@contextlib.asynccontextmanager
async def breakable_redis(folder: Path) -> AsyncIterator[BreakableRedis]:
    """A Redis for one test to break."""
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(redis_server(folder, options=('save ""',)))
        async with Proxy(server.port).running() as proxy:
            yield BreakableRedis(folder, server, proxy, servers)

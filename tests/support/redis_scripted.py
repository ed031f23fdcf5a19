"""A server that speaks just enough of Redis's protocol to be as unpleasant on the wire as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import hiredis

from tests.support.waiting import WAIT_SECONDS


def reply_to(command: list[bytes]) -> bytes:
    """ECHO and PING as Redis has them; FAIL answers an error with its argument, LIST has one in a list."""
    name, argument = command[0].upper(), command[-1]
    bulk = b"$%d\r\n%s\r\n" % (len(argument), argument)
    match name:
        case b"PING":
            return b"+PONG\r\n"
        case b"ECHO":
            return bulk
        case b"FAIL":
            return b"-FAIL %s\r\n" % argument
        case b"LIST":
            return b"*3\r\n%s-FAIL %s\r\n$-1\r\n" % (bulk, argument)
        case _:
            return b"-ERR unknown command\r\n"


@dataclass
class ScriptedServer:
    """Sends its replies in pieces, with pauses, and cuts its first connections in the middle.

    Attributes:
        piece_sizes: how many bytes each send has, over and over.
        pauses_ms: how long it waits after each send, over and over.
        cuts: the number of sent bytes after which the first, second… connection is cut; later ones are whole.
        reply: answers a command.
        received: the last argument of every command, in the order of arrival.
    """

    piece_sizes: Sequence[int]
    pauses_ms: Sequence[int]
    cuts: Sequence[int]
    reply: Callable[[list[bytes]], bytes] = reply_to
    received: list[bytes] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen for the length of the block; all connections are over at its end."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            while self._tasks:
                ended, _ = await asyncio.wait(self._tasks, timeout=WAIT_SECONDS)
                assert ended, "a client has not hung up"

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        number, self.connections = self.connections, self.connections + 1
        budget = self.cuts[number] if number < len(self.cuts) else None
        sizes, pauses = itertools.cycle(self.piece_sizes), itertools.cycle(self.pauses_ms)
        parser = hiredis.Reader(notEnoughData=None)
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                parser.feed(data)
                replies = b""
                while (command := parser.gets()) is not None:
                    self.received.append(command[-1])
                    replies += self.reply(command)
                while replies:
                    piece, replies = _split(replies, next(sizes))
                    if budget is not None:
                        piece = piece[:budget]
                        budget -= len(piece)
                    writer.write(piece)
                    await writer.drain()
                    if budget == 0:
                        writer.transport.abort()
                        return
                    await asyncio.sleep(next(pauses) / 1000)
        # The client has gone: what it has not read must not keep the connection open.
        writer.transport.abort()


def _split(data: bytes, size: int) -> tuple[bytes, bytes]:
    return data[:size], data[size:]

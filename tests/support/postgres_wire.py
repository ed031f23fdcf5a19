"""A TCP wire between a client and PostgreSQL that a test may cut or make as picky as a pooler."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

SSL_REQUEST = 80877103
POOLER_REFUSAL = "unsupported startup parameter: options"


class PostgresWire:
    """Forwards connections to a server until it is told otherwise.

    Attributes:
        cut_on: the wire is cut, both ways, when a client sends these bytes; they do not arrive.
        cut_after: the same, but they arrive; only the answer is lost. Once.
        target_port: where new connections go.
        refuses_options: answer a start-up packet that has `options` as PgBouncer does.
        startups: the start-up packets seen.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._answers_lost = False
        self.port = 0
        self.cut_on: bytes | None = None
        self.cut_after: bytes | None = None
        self.refuses_options = False
        self.startups: list[bytes] = []

    @contextlib.asynccontextmanager
    async def open(self, port: int = 0) -> AsyncIterator[PostgresWire]:
        """Listen on 127.0.0.1, on a free port by default, for the length of the block."""
        handlers: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.add(asyncio.ensure_future(self._serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for handler in handlers:
                handler.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)

    def cut(self) -> None:
        """Close every connection, both ways, without a word."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        self._writers.add(answer)
        startup = await self._read_startup(client, answer)
        self.startups.append(startup)
        if self.refuses_options and b"\0options\0" in startup:
            fields = f"SFATAL\0VFATAL\0C08P01\0M{POOLER_REFUSAL}\0\0".encode()
            answer.write(b"E" + struct.pack("!I", len(fields) + 4) + fields)
            await answer.drain()
            answer.close()
            return
        server, request = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._writers.add(request)
        request.write(startup)
        await asyncio.gather(
            self._pump(client, request, watched=True), self._pump(server, answer, watched=False)
        )

    async def _read_startup(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> bytes:
        while True:
            header = await client.readexactly(8)
            length, code = struct.unpack("!II", header)
            if code != SSL_REQUEST:
                return header + await client.readexactly(length - 8)
            answer.write(b"N")

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, watched: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if self._answers_lost:
                    continue
                if watched and self.cut_on is not None and self.cut_on in data:
                    self.cut()
                    return
                if watched and self.cut_after is not None and self.cut_after in data:
                    self._answers_lost = True
                    sink.write(data)
                    await sink.drain()
                    await asyncio.sleep(0.2)  # until the server has done it
                    self.cut()
                    self.cut_after, self._answers_lost = None, False
                    return
                sink.write(data)
                await sink.drain()
        sink.close()


def through(wire: PostgresWire, url: str) -> str:
    """The same database, at the other end of a wire."""
    address, _, name = url.rpartition("/")
    return f"{address.rpartition(':')[0]}:{wire.port}/{name}"

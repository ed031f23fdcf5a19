"""What the connection uses of aiohttp beyond its public names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11, web, web_protocol

from server.connections.protocol import Connection, ServiceRunner
from server.connections.table import Connections, RefusalWriter
from server.connections.unread import UnreadResponses
from server.middleware.headers import StandardHeaders
from server.settings import Settings
from server.telemetry.metrics.index import Metrics
from tests.connections.raw import get
from tests.support.waiting import wait_until
from tests.test_settings import GOOD

# Of RequestHandler.
PRIVATE = {
    "_current_request", "_drain_helper", "_force_close", "_manager", "_messages", "_next_keepalive_close_time",
    "_request_count", "_request_factory", "_request_handler", "_upgraded", "_waiter",
}  # fmt: skip


def test_share_10_the_private_names_are_those_of_this_version() -> None:
    """Aiohttp 3.14 has them all; when this fails after an update, read its web_protocol.py before this is changed."""
    assert aiohttp.__version__.startswith("3.14.")
    assert set() == {name for name in PRIVATE if not hasattr(web.RequestHandler, name)}
    assert hasattr(web_protocol, "_ErrInfo")
    assert callable(web.AppRunner._make_server)
    assert callable(web.AppRunner._reg_site)
    assert "_backlog" in web.SockSite.__slots__ + web.BaseSite.__slots__
    assert callable(Connection.handle_error)
    assert callable(web.BaseRequest._finish)


# Several pieces, and a part of one.
LARGE = bytes(range(256)) * 1000


@dataclass
class Small:
    """An application with a handler that waits and one whose answer is large, on connections with short deadlines."""

    port: int
    table: Connections
    entered: asyncio.Event
    finish: asyncio.Event
    runner: web.AppRunner


@pytest.fixture
async def small() -> AsyncIterator[Small]:
    """It, listening."""
    entered, finish = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        entered.set()
        await finish.wait()
        return web.Response(text="done")

    async def large(_request: web.Request) -> web.Response:
        response = web.Response(body=LARGE)
        response.enable_compression()  # where the client takes it
        return response

    metrics = Metrics()
    table = Connections(
        RefusalWriter(StandardHeaders(Settings.from_env(GOOD)), metrics),
        metrics,
        UnreadResponses(metrics, still_seconds=1.0, limit_bytes=1 << 20),
        limit=10,
        head_seconds=0.1,
    )
    app = web.Application()
    app.router.add_get("/slow", slow)
    app.router.add_get("/large", large)
    runner = ServiceRunner(app, lambda: table)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield Small(site.port, table, entered, finish, runner)
    finish.set()
    await runner.cleanup()


async def test_share_08_a_head_that_is_begun_behind_a_request_has_its_deadline(small: Small) -> None:
    """What arrives while a request is handled is answered after it, with 408 if it is no whole head by then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(get("/slow"))
    await small.entered.wait()
    writer.write(b"GET /sl")
    await wait_until(lambda: len(small.table._heads) == 1, "the second head has begun")
    small.finish.set()
    received = await reader.read()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in received
    writer.close()


async def test_share_08_a_request_behind_another_is_served(small: Small) -> None:
    """A second request that arrives in two parts during the first is whole, and nothing is awaited any more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(get("/slow"))
    await small.entered.wait()
    writer.write(b"GET /sl")
    await wait_until(lambda: len(small.table._heads) == 1, "the second head has begun")
    writer.write(b"ow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await wait_until(lambda: len(small.table._heads) == 0, "the second head has ended")
    small.finish.set()
    assert 2 == (await reader.read()).count(b"HTTP/1.1 200 ")
    writer.close()


async def test_share_08_connections_leave_nothing_behind(small: Small) -> None:
    """However they end, nothing is kept of them, and no timer runs."""
    small.finish.set()
    for sent in (b"", b"GET /sl", get("/slow", "Connection: close"), b"\0\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
        writer.write(sent)
        if sent:
            await reader.read()
        writer.close()
        await writer.wait_closed()
    await wait_until(lambda: len(small.table) == 0, "all are closed")
    await wait_until(lambda: small.table._timer is None, "the timer has ended")
    assert not any((small.table._heads, small.table._lingering, small.table._spare))


async def test_deploy_06_the_last_of_pipelined_requests_says_that_it_is_the_last(small: Small) -> None:
    """A worker that stops answers what was sent at once; only the last answer says `Connection: close`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(get("/slow") * 3)
    await small.entered.wait()
    stopping = asyncio.create_task(small.runner.cleanup())
    await wait_until(lambda: not small.runner.sites, "no more connections are accepted")
    small.finish.set()
    received = await reader.read()
    await stopping
    assert 3 == received.count(b"HTTP/1.1 200 ")
    assert 1 == received.count(b"Connection: close")
    assert b"Connection: close" in received.rpartition(b"HTTP/1.1 200 ")[2]
    writer.close()


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
@pytest.mark.parametrize("version", [HttpVersion10, HttpVersion11], ids=["1.0", "1.1"])
async def test_slow_readers_large_answers_arrive_whole(
    small: Small, encoding: str, version: HttpVersion
) -> None:
    """What is written in pieces is the body, compressed or not, in whatever version; HEAD has its length alone."""
    headers = {"Accept-Encoding": encoding}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{small.port}", version=version) as session:
        for _ in range(2):
            async with session.get("/large", headers=headers) as answer:
                assert LARGE == await answer.read()
        async with session.head("/large", headers={"Accept-Encoding": "identity"}) as answer:
            assert (str(len(LARGE)), b"") == (answer.headers["Content-Length"], await answer.read())
        async with session.head("/large", headers=headers) as answer:
            assert (200, b"") == (answer.status, await answer.read())
        async with session.get("/large", headers=headers) as answer:  # nothing of a body stood between
            assert LARGE == await answer.read()


class _Stalled(asyncio.Transport):
    """A way to a client that does not read."""

    def get_write_buffer_size(self) -> int:
        return 1


async def test_slow_readers_are_not_looked_at_when_there_are_none() -> None:
    """The timer ends with the last response that is not read: not one for each of them goes on."""
    unread = UnreadResponses(Metrics(), still_seconds=60.0, limit_bytes=1 << 20)
    connection: Any = object()
    unread.paused(connection, _Stalled(), None)
    looking = unread._looking
    assert looking is not None
    unread.ended(connection)
    assert looking.cancelled()

"""Start, status and end of a link."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from functools import partial
from typing import Any

import pytest
import uvloop

from server.development import EmbeddedServer
from server.ratelimit import Charge, Limiter, Policy
from server.stores.redis import node as node_module
from server.stores.redis import protocol as protocol_module
from server.stores.redis.link import RedisLink, RedisUnavailable
from server.stores.redis.node import RedisNode, backoff_seconds
from server.stores.redis.protocol import ReplyStream
from tests.support.redis_servers import let_the_loop_write, open_link, refusal
from tests.support.waiting import wait_until


async def test_close_fails_what_is_pending(any_redis: EmbeddedServer) -> None:
    """Closing ends pending calls, written or not, and later ones, with the reason `closed`."""
    link = RedisLink(any_redis.url)
    await link.start()
    await link.execute("CLIENT", "PAUSE", 300)
    written = link.submit("GET", "key")
    await let_the_loop_write()
    unwritten = link.submit("GET", "key")
    await link.close()
    errors = [await refusal(call) for call in (written, unwritten, link.submit("GET", "key"))]
    expected = [("closed", True), ("closed", False), ("closed", False)]
    assert expected == [(error.reason, error.outcome_unknown) for error in errors]
    assert not link.connected


async def test_dropped_futures_are_silent(any_redis: EmbeddedServer) -> None:
    """Nobody has to look at a submitted command's future: no complaint, no task is left."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    link = RedisLink(any_redis.url, deadline_ms=10)
    await link.start()
    link.submit("NO-SUCH-COMMAND")
    link.submit("GET", "key")
    await link.execute("PING", deadline_ms=2000)
    await link.execute("CLIENT", "PAUSE", 100)
    link.submit("GET", "times out")
    assert (await refusal(link.execute("GET", "times out too"))).reason == "timeout"
    link.submit("GET", "unwritten")
    await link.close()
    link.submit("GET", "after the end")
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_ping_and_status(any_redis: EmbeddedServer) -> None:
    """A ping takes some milliseconds, and a healthy link has no error to tell of."""
    async with open_link(any_redis.url) as link:
        assert 0 < await link.ping() < 1000
        status = link.status
        assert link.connected
        assert (status.last_error, status.last_error_time) == (None, None)
        assert status.reconnects == 0
        assert status.latency_ms is not None


async def test_idle_link_is_pinged(any_redis: EmbeddedServer) -> None:
    """A second without traffic brings a ping, so that the latency stays fresh."""
    trips: list[float] = []
    async with open_link(any_redis.url, on_round_trip=trips.append):
        trips.clear()
        await wait_until(lambda: len(trips) >= 2, "two background pings")


async def test_a_connection_that_lasted_is_made_anew_at_once(
    own_redis: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries that fail, or last for 2 s at most, are further and further apart; after a longer life it begins anew."""
    now = 0.0
    attempts: list[int] = []
    monkeypatch.setattr(node_module, "monotonic", lambda: now)

    def at_once(attempt: int) -> float:
        attempts.append(attempt)
        return 0.0

    monkeypatch.setattr(node_module, "backoff_seconds", at_once)
    async with open_link(own_redis.url) as link:
        node = link._route
        assert isinstance(node, RedisNode)

        def is_replaced(before: ReplyStream) -> bool:
            return node._stream not in {None, before}

        for number, life in enumerate((0.0, 1.0, 2.0, 2.1, 1.0), start=1):
            stream = node._stream
            assert stream is not None
            now += life
            stream.cut("lost")
            await wait_until(partial(is_replaced, stream), f"connection {number} is made anew")
    assert [0, 1, 2, 0, 1] == attempts


async def test_a_connection_is_cut_when_its_oldest_command_waits_longer_than_the_limit(
    own_redis: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default after two seconds, and not before."""
    now = 0.0
    for module in (node_module, protocol_module):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    async with open_link(own_redis.url) as link:
        node = link._route
        assert isinstance(node, RedisNode)
        assert node._stream is not None
        stream, looks = node._stream, 0
        measure = stream.oldest_unanswered_seconds

        def look() -> float:
            nonlocal looks
            looks += 1
            return measure()

        monkeypatch.setattr(stream, "oldest_unanswered_seconds", look)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            link.submit("GET", "key")
            await let_the_loop_write()
            now += 2.0
            looked = looks
            await wait_until(lambda: looks > looked, "the connection is looked at")
            assert not stream.lost.done()
            now += 0.1
            await wait_until(stream.lost.done, "the connection is cut")
            assert "stalled" == stream.lost.result()
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("attempt", "longest"), [(0, 0.05), (1, 0.1), (5, 1.6), (6, 2.0), (100, 2.0), (10**6, 2.0)]
)
def test_the_wait_before_a_try_doubles_up_to_two_seconds(attempt: int, longest: float) -> None:
    """It is random by half, so that processes that lost the same server do not all come back at one instant."""
    waits = [backoff_seconds(attempt) for _ in range(200)]
    assert longest / 2 <= min(waits) < 0.7 * longest
    assert 0.8 * longest < max(waits) <= longest


async def test_ping_of_a_closed_link() -> None:
    """A ping that nobody answers raises."""
    link = RedisLink("redis://127.0.0.1:1")
    await link.close()
    with pytest.raises(RedisUnavailable):
        await link.ping()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_socket_options(own_redis: EmbeddedServer, run: Any) -> None:
    """Small writes leave at once, and a peer that vanished is noticed by the kernel too."""

    async def options() -> tuple[int, int]:
        async with open_link(own_redis.url) as link:
            node = link._route
            assert isinstance(node, RedisNode)
            assert node._stream is not None
            assert node._stream._transport is not None
            sock = node._stream._transport.get_extra_info("socket")
            return (
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            )

    assert run(options()) == (1, 1)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_point_20_a_link_that_was_never_started_raises(any_redis: EmbeddedServer, scheme: str) -> None:
    """Forgetting `start` is a mistake of the program, not an outage: it is loud, also through a limiter."""
    link = RedisLink(any_redis.url.replace("redis", scheme, 1).removesuffix("/0"))
    with pytest.raises(RuntimeError, match="await its start"):
        link.submit("GET", "key")
    with pytest.raises(RuntimeError, match="await its start"):
        await Limiter(link).decide([Charge(Policy("one", 1, 1000), "g", "user:1")])
    await link.close()

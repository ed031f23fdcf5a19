"""Too much unanswered: calls fail at once instead of waiting."""

from __future__ import annotations

import asyncio

from server.tools.embedded import EmbeddedServer
from tests.stores.redis_servers import open_link, refusal
from tests.waiting import wait_until


async def test_too_many_unanswered(any_redis: EmbeddedServer) -> None:
    """Beyond the backlog calls fail at once and were certainly not sent; answers make room again."""
    async with open_link(any_redis.url, backlog=10) as link:
        futures = [link.submit("INCR", "count") for _ in range(15)]
        errors = [await refusal(future) for future in futures[10:]]
        expected = {("backlog", False)}
        assert expected == {(error.reason, error.outcome_unknown) for error in errors}
        assert list(range(1, 11)) == await asyncio.gather(*futures[:10])
        assert await link.execute("INCR", "count") == 11


async def test_server_that_does_not_read(any_redis: EmbeddedServer) -> None:
    """When the socket is full, calls fail at once as backlog, and work again when it is not."""
    async with open_link(any_redis.url, stall_limit_ms=20_000) as link:
        await link.execute("CLIENT", "PAUSE", 700)
        big = b"x" * 1_000_000
        written = [link.submit("SET", "big", big) for _ in range(20)]
        await wait_until(lambda: link.submit("PING").done(), "the transport pushes back")
        assert (await refusal(link.submit("PING"))).reason == "backlog"
        assert await asyncio.gather(*written) == [b"OK"] * 20
        assert await link.execute("PING") == b"PONG"

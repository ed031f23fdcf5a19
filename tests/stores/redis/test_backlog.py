"""Too much unanswered: calls fail at once instead of waiting."""

from __future__ import annotations

import asyncio

from server.development import EmbeddedServer
from server.stores.redis.link import RedisLink, RedisUnavailable
from server.stores.redis.protocol import WINDOW
from tests.support.redis_servers import let_the_loop_write, open_link, refusal
from tests.support.waiting import wait_until


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
    """When the socket is full, commands wait here and are written as soon as there is room again."""
    async with open_link(any_redis.url, deadline_ms=20_000, stall_limit_ms=20_000) as link:
        await link.execute("CLIENT", "PAUSE", 300)
        big = b"x" * 1_000_000
        written = [link.submit("SET", "big", big) for _ in range(20)]
        await let_the_loop_write()
        later = link.submit("ECHO", "later")
        assert [b"OK"] * 20 == await asyncio.gather(*written)
        assert await later == b"later"


async def test_what_waits_behind_a_late_command_fails_with_it(any_redis: EmbeddedServer) -> None:
    """When a written command has run out of time, those that wait to be written end as certainly not executed.

    So does whatever comes later and could not be written; nothing waits without an end.
    """
    async with open_link(any_redis.url, deadline_ms=50, stall_limit_ms=20_000) as link:
        await link.execute("CLIENT", "PAUSE", 1_000)
        outcomes = [await refusal(one) for one in [link.submit("INCR", "n") for _ in range(WINDOW + 50)]]
        assert [("timeout", True)] * WINDOW == [
            (error.reason, error.outcome_unknown) for error in outcomes[:WINDOW]
        ]
        assert {("timeout", False)} == {(error.reason, error.outcome_unknown) for error in outcomes[WINDOW:]}
        at_once = link.submit("INCR", "n")
        assert at_once.done()
        error = await refusal(at_once)
        assert ("stalled", False) == (error.reason, error.outcome_unknown)
        await wait_until(lambda: _is_served(link), "the server goes on")
        assert str(WINDOW).encode() == await link.execute("GET", "n", deadline_ms=20_000)


async def test_a_late_command_is_forgiven_with_the_next_reply(any_redis: EmbeddedServer) -> None:
    """Once Redis has answered again, what does not fit into the window waits for its turn, as before."""
    async with open_link(any_redis.url, stall_limit_ms=20_000) as link:
        await link.execute("CLIENT", "PAUSE", 100)
        assert "timeout" == (await refusal(link.execute("INCR", "n", deadline_ms=20))).reason
        assert b"PONG" == await link.execute("PING", deadline_ms=20_000)
        await link.execute("CLIENT", "PAUSE", 300)
        calls = [asyncio.create_task(_count(link)) for _ in range(WINDOW)]
        await let_the_loop_write()
        calls += [asyncio.create_task(_count(link)) for _ in range(50)]
        assert list(range(2, WINDOW + 52)) == await asyncio.gather(*calls)


async def _count(link: RedisLink) -> int:
    count: int = await link.execute("INCR", "n", deadline_ms=20_000)
    return count


async def _is_served(link: RedisLink) -> bool:
    try:
        return bool(await link.execute("PING") == b"PONG")
    except RedisUnavailable:
        return False

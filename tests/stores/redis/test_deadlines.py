"""A deadline ends a call and nothing else; late replies go to nobody."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import uvloop

from server.development.servers import EmbeddedServer
from tests.support.redis_servers import let_the_loop_write, open_link, refusal


async def test_late_reply_is_dropped(any_redis: EmbeddedServer) -> None:
    """A call that times out says that its outcome is unknown, and its late reply goes to nobody."""
    async with open_link(any_redis.url) as link:
        slow = link.execute("EVAL", "for i = 1, 2e7 do end return 'late'", 0, deadline_ms=30)
        error = await refusal(slow)
        assert (error.reason, error.outcome_unknown) == ("timeout", True)
        assert await link.execute("ECHO", "mine", deadline_ms=10_000) == b"mine"
        assert link.status.last_error == "timeout"
        assert link.status.connected
        assert link.status.reconnects == 0


async def test_deadline_is_kept(any_redis: EmbeddedServer) -> None:
    """With a paused server calls of different deadlines each end at their own."""
    async with open_link(any_redis.url) as link:
        await link.execute("CLIENT", "PAUSE", 1500)

        async def duration_ms(deadline_ms: float) -> float:
            began = time.monotonic()
            assert (await refusal(link.execute("GET", "key", deadline_ms=deadline_ms))).reason == "timeout"
            return (time.monotonic() - began) * 1000

        wanted = [200, 40, 120, 80, 40]
        for expected, actual in zip(wanted, await asyncio.gather(*map(duration_ms, wanted)), strict=True):
            assert expected - 1 <= actual < expected + 30


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_reply_that_is_there_beats_the_deadline(any_redis: EmbeddedServer, run: Any) -> None:
    """A loop that was busy past the deadline reads the reply that lies in its socket before it gives up."""

    async def busy() -> object:
        async with open_link(any_redis.url) as link:
            reply = asyncio.ensure_future(link.execute("ECHO", "here", deadline_ms=30))
            await let_the_loop_write()
            time.sleep(0.1)  # noqa: ASYNC251 - the point of the test
            return await reply

    assert run(busy()) == b"here"


async def test_cancelled_caller_leaves_its_slot(any_redis: EmbeddedServer) -> None:
    """Cancelling calls shifts no reply to another call."""
    async with open_link(any_redis.url) as link:
        tasks = [asyncio.create_task(link.execute("ECHO", number)) for number in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        for number, reply in enumerate(replies):
            if number % 3:
                assert str(number).encode() == reply
            else:
                assert isinstance(reply, asyncio.CancelledError)

"""A deadline ends a call and nothing else; late replies go to nobody."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import uvloop

from server.development import EmbeddedServer
from server.stores.redis import deadlines as deadlines_module
from server.stores.redis.deadlines import Deadlines, Write
from server.stores.redis.link import Reply
from tests.support.redis_servers import let_the_loop_write, open_link, refusal
from tests.support.waiting import wait_until


async def test_late_reply_is_dropped(any_redis: EmbeddedServer) -> None:
    """A call that times out says that its outcome is unknown, and its late reply goes to nobody."""
    async with open_link(any_redis.url) as link:
        slow = link.execute("EVAL", "for i = 1, 2e7 do end return 'late'", 0, deadline_ms=30)
        error = await refusal(slow)
        assert (error.reason, error.outcome_unknown) == ("timeout", True)
        assert await link.execute("ECHO", "mine", deadline_ms=10_000) == b"mine"
        assert link.status.last_error == "timeout"
        assert link.connected
        assert link.status.reconnects == 0


async def test_deadline_is_kept(any_redis: EmbeddedServer) -> None:
    """With a paused server calls of different deadlines each end after their own, and before the server goes on."""
    async with open_link(any_redis.url) as link:
        await link.execute("CLIENT", "PAUSE", 5000)

        async def duration_ms(deadline_ms: float) -> float:
            began = time.monotonic()
            assert (await refusal(link.execute("GET", "key", deadline_ms=deadline_ms))).reason == "timeout"
            return (time.monotonic() - began) * 1000

        wanted = [200, 40, 120, 80, 40]
        for expected, actual in zip(wanted, await asyncio.gather(*map(duration_ms, wanted)), strict=True):
            assert expected - 1 <= actual


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


class SilentConnection:
    """A connection on which nothing ever arrives."""

    node = "silent"
    read_much = False
    overdue = False

    def has_answered(self, number: int) -> bool:
        """Never."""
        del number
        return False

    def is_overdue(self) -> None:
        """Remember it."""
        self.overdue = True


async def test_a_process_that_stood_still_gives_redis_one_more_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After ten seconds of nothing a call of 50 ms has 50 ms more: not ten seconds, and not twice."""
    now = 100.0
    monkeypatch.setattr(deadlines_module, "monotonic", lambda: now)
    reasons: list[str] = []
    deadlines, connection = Deadlines(reasons.append), SilentConnection()
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    write = Write(connection, 1, 0.05, [future])
    deadlines.add(write, now)
    assert pytest.approx(100.05) == write.expiry
    now += 10
    await wait_until(lambda: write.extended, "the deadline is extended")
    assert pytest.approx(110.05) == write.expiry
    assert (False, []) == (connection.overdue, reasons)
    now += 10
    error = await refusal(future)
    assert ("timeout", True, True) == (error.reason, error.outcome_unknown, connection.overdue)
    assert ["timeout"] == reasons
    deadlines.close()


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

"""Scripts are known to the server when they run, whatever happened to its memory of them."""

from __future__ import annotations

import asyncio

import pytest

from server.development import EmbeddedServer
from server.stores.redis import link as link_module
from server.stores.redis.link import RedisReplyError, Reply
from server.stores.redis.protocol import Command
from tests.support.redis_servers import ADD, open_link, script_of


async def test_unknown_script_is_loaded_once(any_redis: EmbeddedServer) -> None:
    """A hundred first calls at once load the script a single time, and each of them counts."""
    async with open_link(any_redis.url) as link:
        await asyncio.gather(*(link.run_script(ADD, ["sum"], [1]) for _ in range(100)))
        assert await link.execute("GET", "sum") == b"100"
        statistics = (await link.execute("INFO", "commandstats")).decode()
        loads = next(line for line in statistics.splitlines() if line.startswith("cmdstat_script"))
        assert ":calls=1," in loads


async def test_flushed_script_is_loaded_again(any_redis: EmbeddedServer) -> None:
    """After SCRIPT FLUSH a call still succeeds, and runs once."""
    async with open_link(any_redis.url) as link:
        assert await link.run_script(ADD, ["sum"], [1]) == 1
        await link.execute("SCRIPT", "FLUSH")
        assert await link.run_script(ADD, ["sum"], [1]) == 2


async def test_script_that_is_flushed_all_the_time(any_redis: EmbeddedServer) -> None:
    """Flushes between the load and the run never reach a caller as NOSCRIPT, nor run a script twice."""
    async with open_link(any_redis.url) as link, open_link(any_redis.url) as other:
        stop = False

        async def flush() -> None:
            while not stop:
                await asyncio.gather(*(other.submit("SCRIPT", "FLUSH") for _ in range(20)))

        flushing = asyncio.create_task(flush())
        for _ in range(30):
            await asyncio.gather(*(link.run_script(ADD, ["sum"], [1]) for _ in range(5)))
        stop = True
        await flushing
        assert await link.execute("GET", "sum") == b"150"


async def test_a_deadline_holds_for_all_that_a_script_takes(
    own_redis: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command of a run has what those before it have left of the deadline, and a fifth at the least."""
    now = 0.0
    monkeypatch.setattr(link_module, "monotonic", lambda: now)
    async with open_link(own_redis.url) as link:
        given: list[tuple[object, float]] = []
        send, broadcast = link._route.send, link._route.broadcast

        def note(command: Command, seconds: float) -> None:
            nonlocal now
            given.append((command[0], round(seconds, 3)))
            now += 4.5  # as if Redis took so long
            if given[1:] and command[0] == "EVALSHA":
                send(("SCRIPT", "FLUSH"), 10)  # it has just been loaded

        def slow_send(command: Command, seconds: float) -> asyncio.Future[Reply]:
            note(command, seconds)
            return send(command, seconds)

        def slow_broadcast(command: Command, seconds: float) -> list[asyncio.Future[Reply]]:
            note(command, seconds)
            return broadcast(command, seconds)

        monkeypatch.setattr(link, "_send", slow_send)
        monkeypatch.setattr(link._route, "broadcast", slow_broadcast)
        assert 1 == await link.run_script(ADD, ["sum"], [1], deadline_ms=10_000)
    assert [("EVALSHA", 10), ("SCRIPT", 5.5), ("EVALSHA", 2), ("EVAL", 2)] == given


async def test_waiting_for_a_load_can_be_cancelled(any_redis: EmbeddedServer) -> None:
    """The caller whose call began the load may go; the others still get their results."""
    async with open_link(any_redis.url) as link:
        tasks = [asyncio.create_task(link.run_script(ADD, ["sum"], [1])) for _ in range(5)]
        while not link._loading:  # noqa: ASYNC110 - it takes a fraction of a millisecond
            await asyncio.sleep(0)
        tasks[0].cancel()
        assert sorted(await asyncio.gather(*tasks[1:])) == [1, 2, 3, 4]


async def test_error_of_a_script(any_redis: EmbeddedServer) -> None:
    """An error that the script makes is a RedisReplyError, not a reason to load it again."""
    async with open_link(any_redis.url) as link:
        with pytest.raises(RedisReplyError, match="broken"):
            await link.run_script(script_of(b"return redis.error_reply('ERR broken')"), [], [])

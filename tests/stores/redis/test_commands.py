"""Commands on a healthy server: replies, refusals, and what belongs to one write."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from server.development import EmbeddedServer, redis_server
from server.stores.redis.link import RedisReplyError
from server.stores.redis.protocol import WINDOW
from tests.support.redis_servers import open_link


async def test_reply_of_each_type(any_redis: EmbeddedServer) -> None:
    """Status lines, integers, bytes, nothing and lists come back as Python values."""
    async with open_link(any_redis.url) as link:
        assert await link.execute("SET", "key", b"\x00\xff") == b"OK"
        assert await link.execute("GET", "key") == b"\x00\xff"
        assert await link.execute("GET", "other") is None
        assert await link.execute("INCRBY", "number", 41) == 41
        assert await link.execute("INCRBYFLOAT", "number", 0.5) == b"41.5"
        assert await link.execute("MGET", "other", "number") == [None, b"41.5"]


async def test_commands_of_one_tick_are_one_write(any_redis: EmbeddedServer) -> None:
    """A burst of submitted commands is one round trip, and every reply finds its command."""
    trips: list[float] = []
    async with open_link(any_redis.url, on_round_trip=trips.append) as link:
        trips.clear()
        replies = await asyncio.gather(*(link.submit("ECHO", number) for number in range(WINDOW)))
        assert [str(number).encode() for number in range(WINDOW)] == replies
        assert len(trips) == 1


async def test_wrong_command_is_the_callers_fault(any_redis: EmbeddedServer) -> None:
    """A refused command raises with Redis's code, and its neighbours are answered."""
    async with open_link(any_redis.url) as link:
        link.submit("SET", "text", "x")
        wrong = link.submit("LPUSH", "text", "y")
        right = link.submit("GET", "text")
        with pytest.raises(RedisReplyError) as caught:
            await wrong
        assert caught.value.code == "WRONGTYPE"
        assert await right == b"x"
        assert link.status.last_error is None


async def test_error_inside_a_list_stays_there(any_redis: EmbeddedServer) -> None:
    """An error that is one element of a reply is an element, not an explosion."""
    async with open_link(any_redis.url) as link:
        source = "return {1, redis.error_reply('MY mistake'), 3}"
        first, error, last = await link.execute("EVAL", source, 0)
        assert (first, last) == (1, 3)
        assert isinstance(error, RedisReplyError)
        assert error.code == "MY"


@pytest.mark.parametrize("argument", [None, True, ["x"]])
async def test_argument_that_redis_does_not_know(any_redis: EmbeddedServer, argument: object) -> None:
    """What is neither bytes, text nor a number is refused before anything is sent."""
    async with open_link(any_redis.url) as link:
        with pytest.raises(TypeError):
            await link.execute("SET", "key", argument)  # type: ignore[arg-type]
        assert await link.execute("EXISTS", "key") == 0


async def test_database_of_the_url(any_redis: EmbeddedServer) -> None:
    """The number in the URL's path selects the database."""
    async with open_link(any_redis.url.replace("/0", "/3")) as link, open_link(any_redis.url) as zero:
        await link.execute("SET", "key", "three")
        assert await zero.execute("GET", "key") is None
        assert await link.execute("GET", "key") == b"three"


async def test_unix_socket(tmp_path: Path) -> None:
    """A unix:// URL works like any other."""
    path = tmp_path / "redis.sock"
    with redis_server(tmp_path / "redis", options=(f'unixsocket "{path}"',)) as server:
        password = server.url.partition("://:")[2].partition("@")[0]
        async with open_link(f"unix://:{password}@{path}") as link:
            assert await link.execute("ECHO", "hi") == b"hi"


def test_uvloop(any_redis: EmbeddedServer) -> None:
    """The transport of uvloop is taken over as well as asyncio's."""

    async def echo() -> object:
        async with open_link(any_redis.url) as link:
            return await asyncio.gather(*(link.execute("ECHO", n) for n in range(100)))

    assert [str(n).encode() for n in range(100)] == uvloop.run(echo())

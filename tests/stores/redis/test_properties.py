"""Whatever the wire does, every call gets its own reply or a RedisUnavailable that is true."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import mean
from typing import Literal

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable
from tests.support.properties import examples
from tests.support.redis_scripted import ScriptedServer
from tests.support.redis_servers import PATIENT, open_link, refusal
from tests.support.waiting import wait_until

Fate = Literal["wait", "cancel", "hurry"]
Call = tuple[int, Fate]  # the length of its argument, and how patient its caller is

KINDS = ("ECHO", "FAIL", "LIST")

calls_of_a_test = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["wait", "wait", "cancel", "hurry"])),
    min_size=1,
    max_size=60,
)


@given(
    piece_sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8),
    pauses_ms=st.lists(st.sampled_from([0, 0, 0, 1, 3]), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 1500), max_size=2),
    calls=calls_of_a_test,
    calls_per_tick=st.integers(1, 20),
)
@example(piece_sizes=[1], pauses_ms=[0], cuts=[], calls=[(5, "wait")] * 10, calls_per_tick=10)
@example(piece_sizes=[7], pauses_ms=[1], cuts=[300], calls=[(9, "hurry"), (9, "wait")] * 10, calls_per_tick=3)
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
def test_every_call_gets_its_own_reply(
    piece_sizes: list[int], pauses_ms: list[int], cuts: list[int], calls: list[Call], calls_per_tick: int
) -> None:
    """Replies in pieces, late and cut off, callers that leave: no reply is another's, no claim untrue."""
    sends = sum(2 * length + 40 for length, _ in calls) / mean(piece_sizes)
    assume(
        sends * mean(pauses_ms) < 1000
    )  # a server that takes longer is one that patient callers give up, too
    server = ScriptedServer(piece_sizes, pauses_ms, cuts)
    outcomes = asyncio.run(play(server, calls, calls_per_tick))
    for number, ((_, fate), outcome) in enumerate(zip(calls, outcomes, strict=True)):
        argument = argument_of(number, calls)
        if isinstance(outcome, asyncio.CancelledError):
            assert fate == "cancel"
        elif isinstance(outcome, RedisUnavailable):
            assert cuts or fate == "hurry", outcome
            if not outcome.outcome_unknown:
                assert argument not in server.received
        else:
            assert is_reply_to(outcome, KINDS[number % 3], argument)


def argument_of(number: int, calls: Sequence[Call]) -> bytes:
    """An argument that no other call has."""
    return b"%d:" % number + b"x" * calls[number][0]


def is_reply_to(outcome: object, kind: str, argument: bytes) -> bool:
    """Whether this is what the scripted server answers to that command."""
    text = f"FAIL {argument.decode()}"
    if kind == "ECHO":
        return outcome == argument
    if kind == "FAIL":
        return isinstance(outcome, RedisReplyError) and outcome.message == text
    assert isinstance(outcome, list)
    first, error, last = outcome
    return first == argument and isinstance(error, RedisReplyError) and error.message == text and last is None


async def play(server: ScriptedServer, calls: Sequence[Call], calls_per_tick: int) -> list[object]:
    """The outcome of every call; at the end the link must work again."""
    async with server.running(), open_link(server.url, **PATIENT) as link:
        tasks: list[asyncio.Task[object]] = []
        leaving: list[asyncio.Task[object]] = []
        for first in range(0, len(calls), calls_per_tick):
            for task in leaving:
                task.cancel()
            leaving = []
            tick = range(first, min(first + calls_per_tick, len(calls)))
            for number in tick:
                fate = calls[number][1]
                task = asyncio.create_task(call(link, number, calls))
                tasks.append(task)
                if fate == "cancel":
                    leaving.append(task)
            await asyncio.sleep(0.001 if len(tick) % 2 else 0)
        for task in leaving:
            task.cancel()
        outcomes: list[object] = list(await asyncio.gather(*tasks, return_exceptions=True))
        await wait_until(lambda: link.connected, "it is connected at the end")
        return outcomes


async def call(link: RedisLink, number: int, calls: Sequence[Call]) -> object:
    deadline_ms = 2 if calls[number][1] == "hurry" else None
    return await link.execute(KINDS[number % 3], argument_of(number, calls), deadline_ms=deadline_ms)


async def test_reply_to_nothing() -> None:
    """A server that answers what nobody asked has lost the order: the connection is cut, nobody is misled."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if b"PING" in data:
                writer.write(b"+PONG\r\n")
            elif b"GET" in data:
                writer.write(b"$4\r\nmine\r\n$5\r\nother\r\n")
            else:
                writer.write(b"-ERR unknown\r\n" * data.count(b"*"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_link(f"redis://127.0.0.1:{port}") as link:
        assert await link.execute("GET", "key") == b"mine"
        assert link.status.last_error == "protocol"
        assert not link.connected


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x01\x02\x03\r\n"])
async def test_server_of_another_kind(garbage: bytes) -> None:
    """A server that does not speak Redis's protocol is refused for what it is."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(garbage)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_link(f"redis://127.0.0.1:{port}") as link:
        assert (await refusal(link.execute("PING"))).reason == "protocol"

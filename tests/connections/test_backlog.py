"""Many clients that connect at the same moment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter

import uvloop

from server.connections.backlog import Backlog

CROWD = 200


def test_a_crowd_is_accepted_in_a_few_turns_of_the_loop() -> None:
    """Not one in each turn: the last of a thousand would wait for a thousand turns."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=CROWD))
        clients = [
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=30))
            for _ in range(CROWD)
        ]

        accepted = uvloop.run(accept(listener, [client.getsockname() for client in clients]))

    assert {client for client, _ in accepted} == set(range(CROWD))
    by_turn = Counter(turn for _, turn in accepted)
    assert len(by_turn) < CROWD / 5
    before = 0
    for _, new in sorted(by_turn.items()):  # another worker on the same socket gets its share
        assert new <= CROWD / 2
        assert new <= 2 + 2 * before
        before += new


async def accept(listener: socket.socket, clients: list[tuple[str, int]]) -> list[tuple[int, int]]:
    """Accept them all: of each client its number, and the turn of the loop that it was accepted in."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    turns = closed = 0
    found: list[tuple[int, int]] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            found.append((clients.index(transport.get_extra_info("peername")), turns))
            transport.close()

        def connection_lost(self, _error: Exception | None) -> None:
            nonlocal closed
            closed += 1
            if closed == len(clients):
                done.set()

    def count() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(count)

    def accepted() -> Protocol:
        backlog.look_soon()
        return Protocol()

    backlog = Backlog(Protocol, lambda: CROWD, lambda: len(found))
    backlog.watch(listener)
    count()
    async with asyncio.timeout(60):
        server = await loop.create_server(accepted, sock=listener)
        await done.wait()
    server.close()
    await server.wait_closed()
    return found

"""Accepts clients that have connected at the same moment.

uvloop accepts one connection in each turn of its loop. A turn is as long as the work of all connections that are open,
so when a thousand clients connect at once, the last ones would wait for a thousand turns, each longer than the one
before, though they have sent their requests. So whenever uvloop has accepted one, more that wait are accepted in the
same turn: at most half as many as there are. Thus the number of turns grows with the logarithm of the crowd; and of
several workers that share a socket, none takes the whole crowd before the others have looked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

# So much work for one turn, in which the open connections have to wait: some 20 ms.
_MOST_AT_ONCE: Final = 256

MakeProtocol = Callable[[], asyncio.Protocol]


class Backlog:
    """What waits on the listening sockets of one worker.

    Args:
        make_protocol: makes the protocol of a connection.
        room: for how many more there is room now.
        count_open: how many connections there are.
    """

    def __init__(
        self, make_protocol: MakeProtocol, room: Callable[[], int], count_open: Callable[[], int]
    ) -> None:
        self._make_protocol = make_protocol
        self._room = room
        self._count_open = count_open
        self._listeners: list[socket.socket] = []
        self._opening: set[asyncio.Task[object]] = set()
        self._is_due = False

    def watch(self, listener: socket.socket) -> None:
        """Accept from this socket, too; the loop has it already, and closes it."""
        listener.setblocking(False)
        self._listeners.append(listener)

    def look_soon(self) -> None:
        """The loop has accepted a connection: accept some of those that wait behind it."""
        if not self._is_due and self._listeners:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._accept)

    def _accept(self) -> None:
        self._is_due = False
        # Where room must be made, one in each turn: the others have the time to send a request, and are not idle then.
        left = min(1 + self._count_open() // 2, _MOST_AT_ONCE, self._room())
        for listener in self._listeners:
            while left > 0:
                try:
                    accepted, _ = listener.accept()
                except OSError:  # none waits, or the loop's own accept fails likewise and reports it
                    break
                left -= 1
                self._open(accepted)

    def _open(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.connect_accepted_socket(self._make_protocol, accepted))
        self._opening.add(opening)
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # a client that has gone already is no event

"""One Redis connection for everyone: the commands of one loop tick leave in one write, replies come in order.

The order is all that matches a reply to its command, so a slot is never given up: a caller that timed out
or was cancelled leaves its finished future in the queue, and the late reply is dropped with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import cast

import hiredis

from server.stores.redis_commands import Command, pack
from server.stores.redis_errors import (
    RedisReplyError,
    RedisUnavailable,
    Reply,
    error_from_reply,
    fail,
)

Redirect = Callable[[asyncio.Future[Reply], Command, int, RedisReplyError], None]
"""Takes over what a Cluster node refused: its future, the command, its earlier redirections, the error."""

_INCOMPLETE = object()
_REDIRECTIONS = frozenset({"MOVED", "ASK"})
# After these the server will go on refusing whatever we do: only another connection may help.
_USELESS = frozenset({"readonly", "auth"})


class ReplyStream(asyncio.Protocol):
    """The protocol of a connection whose handshake is done.

    Args:
        backlog: how many commands may be unanswered; more are refused at once.
        on_round_trip: called with the seconds from a write to its last reply, once a write.
        on_fault: called with the reason when an error reply says that Redis can't serve, or at the end.
        on_redirect: handles MOVED and ASK; without it they are errors like others.
    """

    def __init__(
        self,
        *,
        backlog: int,
        on_round_trip: Callable[[float], None],
        on_fault: Callable[[str], None],
        on_redirect: Redirect | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._backlog = backlog
        self._on_round_trip = on_round_trip
        self._on_fault = on_fault
        self._on_redirect = on_redirect
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader = hiredis.Reader(replyError=error_from_reply, notEnoughData=_INCOMPLETE)
        self._pending: deque[asyncio.Future[Reply]] = deque()
        self._commands: deque[tuple[Command, int]] = (
            deque()
        )  # beside the pending, where they may be redirected
        self._outgoing: list[bytes] = []
        self._writes: deque[tuple[int, float]] = deque()  # (number of its last command, when)
        self._written = 0
        self._answered = 0
        self._refusal: str | None = None
        self._finishing: str | None = None
        self.last_answer_time = monotonic()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done, with the reason, when the connection is over."""

    def adopt(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over a connection from its stream reader and writer, with whatever they have read already.

        Raises:
            RedisUnavailable: the connection ended in the meantime.
        """
        transport = cast("asyncio.Transport", writer.transport)
        if reader.at_eof() or reader.exception() is not None or transport.is_closing():
            raise RedisUnavailable("lost")
        self._writer = writer  # kept alive: newer Pythons close the transport of a writer that is collected
        transport.set_protocol(self)
        self.connection_made(transport)
        unread: bytearray = reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
        if unread:
            self.data_received(bytes(unread))
            unread.clear()

    def send(
        self, command: Command, future: asyncio.Future[Reply] | None = None, redirections: int = 0
    ) -> asyncio.Future[Reply]:
        """Queue a command for this tick's write.

        Args:
            command: its name and its arguments.
            future: of a command that was sent elsewhere before; a new one by default.
            redirections: how often it was redirected.

        Returns the future of its reply; it has failed already where the connection can't take the command.

        Raises:
            TypeError: an argument is neither bytes, text nor a number.
        """
        if future is None:
            future = self._loop.create_future()
        if self._refusal is not None or len(self._pending) >= self._backlog:
            fail(future, RedisUnavailable(self._refusal or "backlog"))
            return future
        packed = pack(command)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packed)
        self._pending.append(future)
        if self._on_redirect is not None:
            self._commands.append((command, redirections))
        return future

    @property
    def accepts(self) -> bool:
        """Whether the connection is there to stay, as far as we know."""
        return self._finishing is None and not self.lost.done()

    def oldest_unanswered_seconds(self) -> float:
        """How long ago the oldest command without a reply was written; 0 if there is none."""
        return monotonic() - self._writes[0][1] if self._writes else 0.0

    def cut(self, reason: str) -> None:
        """End the connection now; whatever has no reply fails with this reason."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._refusal = reason
        if reason != "closed":
            self._on_fault(reason)
        written = len(self._pending) - len(self._outgoing)
        for position, future in enumerate(self._pending):
            if not future.done():
                fail(future, RedisUnavailable(reason, outcome_unknown=position < written))
        self._pending.clear()
        self._commands.clear()
        self._outgoing.clear()
        self._writes.clear()
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        outgoing = self._outgoing
        if not outgoing or self._transport is None:  # cut meanwhile
            return
        self._written += len(outgoing)
        self._writes.append((self._written, monotonic()))
        data = b"".join(outgoing)
        outgoing.clear()
        self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.lost.done():
            return
        pending, commands = self._pending, self._commands
        waiting = len(pending) - len(self._outgoing)
        unanswered = waiting
        next_reply = self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := next_reply()) is not _INCOMPLETE:
                if unanswered == 0:  # a reply to nothing: the order can't be trusted any more
                    self.cut("protocol")
                    return
                unanswered -= 1
                future = pending.popleft()
                command = commands.popleft() if commands else None
                if isinstance(reply, Exception):
                    self._refused(future, reply, command)
                elif not future.done():
                    future.set_result(reply)
        except hiredis.ProtocolError:
            self.cut("protocol")
            return
        if unanswered != waiting:
            self._count_answers(waiting - unanswered)

    def _refused(
        self, future: asyncio.Future[Reply], error: Exception, command: tuple[Command, int] | None
    ) -> None:
        if isinstance(error, RedisUnavailable):
            self._on_fault(error.reason)
            if error.reason in _USELESS:
                self._refusal = self._finishing = error.reason
        if future.done():
            return
        if (
            command is not None
            and self._on_redirect is not None
            and isinstance(error, RedisReplyError)
            and error.code in _REDIRECTIONS
        ):
            self._on_redirect(future, *command, error)
        else:
            fail(future, error)

    def _count_answers(self, number: int) -> None:
        now = self.last_answer_time = monotonic()
        self._answered += number
        writes = self._writes
        while writes and writes[0][0] <= self._answered:
            self._on_round_trip(now - writes.popleft()[1])
        if self._finishing is not None and not self._pending:
            self.cut(self._finishing)

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol: the server does not read fast enough, which is a backlog too."""
        if self._refusal is None:
            self._refusal = "backlog"

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        if self._refusal == "backlog":
            self._refusal = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        del exc
        self.cut("lost")

"""One shared Redis connection: the commands of one loop tick leave in one write, and replies come in order.

The order alone matches a reply to its command. So a slot is never given up: a caller that timed out or was cancelled
leaves its finished future in the queue, and the late reply is dropped with it.

Only so many commands are written before their replies are read; the others wait. So a deadline, which counts from the
write, measures how long Redis takes for one command, not how many were sent before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Self, cast

import hiredis

from .deadlines import Deadlines, Write
from .errors import (
    Argument,
    RedisReplyError,
    RedisUnavailable,
    Reply,
    error_from_reply,
    fail,
)
from .scripts import Script

Command = tuple[Argument, ...]


class PreparedCommand(tuple[Argument, ...]):  # noqa: SLOT001 - a tuple can't have slots
    """A command, its name first, with the bytes that it is sent as.

    Raises:
        TypeError: an argument is neither bytes, text nor a number.
    """

    packed: bytes

    def __new__(cls, *arguments: Argument) -> Self:
        """Pack the command."""
        command = super().__new__(cls, arguments)
        command.packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means any length
        return command


class ScriptCall:
    """A script with its operands, to be run any number of times.

    Args:
        script: what to run.
        keys: its KEYS; with a Cluster all in one slot.
        args: its ARGV.
    """

    __slots__ = ("command", "operands", "script")

    def __init__(self, script: Script, keys: Sequence[bytes | str], args: Sequence[Argument]) -> None:
        self.script = script
        self.operands: Command = (len(keys), *keys, *args)
        self.command = PreparedCommand("EVALSHA", script.sha1, *self.operands)


def pack(command: Command) -> bytes:
    """Return the bytes of a command.

    Raises:
        TypeError: an argument is neither bytes, text nor a number.
    """
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means any length
    return packed


Redirect = Callable[[asyncio.Future[Reply], Command, float | None, int, RedisReplyError], None]
"""Takes over what a Cluster node refused: its future, the command, its deadline in seconds, its earlier
redirections, the error."""

# Commands that are written before the first of them is answered: a few milliseconds of Redis's work.
WINDOW = 256

_INCOMPLETE = object()
# A read of so many bytes may have left some in the socket: asyncio reads 256 KiB at most, less through TLS.
_MUCH_BYTES = 16 * 1024
_REDIRECTIONS = frozenset({"MOVED", "ASK"})
# After these the server will go on refusing whatever we do: only another connection may help.
_USELESS = frozenset({"readonly", "auth"})


class ReplyStream(asyncio.Protocol):
    """The protocol of a connection whose handshake is done.

    Args:
        backlog: how many commands may be without a reply, written or not; more are refused at once.
        deadlines: of what is written.
        node: what errors call the server.
        on_round_trip: called with the seconds from a write to its last reply, once a write.
        on_fault: called with the reason of an error reply that means Redis can't serve, or of the end.
        on_redirect: handles MOVED and ASK; without it they are errors like others.
    """

    def __init__(
        self,
        *,
        backlog: int,
        deadlines: Deadlines,
        node: str,
        on_round_trip: Callable[[float], None],
        on_fault: Callable[[str], None],
        on_redirect: Redirect | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._backlog = backlog
        self._deadlines = deadlines
        self.node = node
        self._on_round_trip = on_round_trip
        self._on_fault = on_fault
        self._on_redirect = on_redirect
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader = hiredis.Reader(replyError=error_from_reply, notEnoughData=_INCOMPLETE)
        self._pending: deque[asyncio.Future[Reply]] = deque()  # of what is written
        self._waiting: deque[tuple[bytes, asyncio.Future[Reply], float | None]] = deque()  # to be written
        # Beside both, where a command may be redirected: itself, its deadline, its redirections.
        self._commands: deque[tuple[Command, float | None, int]] = deque()
        self._flush_is_due = False
        self._paused = False
        self._overdue = False
        self._writes: deque[tuple[int, float]] = deque()  # (number of its last command, when)
        self._written = 0
        self._answered = 0
        self._refusal: str | None = None
        self._finishing: str | None = None
        self.last_answer_time = monotonic()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done, with the reason, when the connection is over."""
        self.read_much = False
        """Set by a read that may have left data in the socket; `Deadlines` clears it."""

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
        self,
        command: Command,
        seconds: float | None = None,
        future: asyncio.Future[Reply] | None = None,
        redirections: int = 0,
    ) -> asyncio.Future[Reply]:
        """Queue a command for this tick's write.

        Args:
            command: its name and its arguments.
            seconds: how long Redis may take from the write on; for ever by default.
            future: of a command that was sent elsewhere before; a new one by default.
            redirections: how often it was redirected.

        Returns the future of its reply; it has failed already where the connection can't take the command.

        Raises:
            TypeError: an argument is neither bytes, text nor a number.
        """
        if future is None:
            future = self._loop.create_future()
        if self._refusal is not None or len(self._pending) + len(self._waiting) >= self._backlog:
            fail(future, RedisUnavailable(self._refusal or "backlog", node=self.node))
            return future
        if self._overdue and (self._paused or len(self._pending) >= WINDOW):
            # It could not be written, and would wait for ever.
            fail(future, RedisUnavailable("stalled", node=self.node))
            return future
        packed = command.packed if type(command) is PreparedCommand else pack(command)
        self._waiting.append((packed, future, seconds))
        if self._on_redirect is not None:
            self._commands.append((command, seconds, redirections))
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        return future

    @property
    def accepts(self) -> bool:
        """Whether the connection takes commands."""
        return self._finishing is None and not self.lost.done()

    def oldest_unanswered_seconds(self) -> float:
        """Return how long ago the oldest command without a reply was written; 0 if there is none."""
        return monotonic() - self._writes[0][1] if self._writes else 0.0

    def cut(self, reason: str) -> None:
        """End the connection now; whatever has no reply fails with this reason."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._refusal = reason
        if reason != "closed":
            self._on_fault(reason)
        for future in self._pending:
            if not future.done():
                fail(future, RedisUnavailable(reason, outcome_unknown=True, node=self.node))
        self._pending.clear()
        self._fail_waiting(reason)
        self._commands.clear()
        self._writes.clear()
        if self._transport is not None:
            self._transport.abort()

    def has_answered(self, number: int) -> bool:
        """Whether the command of this number has its reply, or never will."""
        return self._answered >= number or self.lost.done()

    def is_overdue(self) -> None:
        """Note that a written command has run out of time. What waits behind it fails, certainly not executed."""
        self._overdue = True
        self._fail_waiting("timeout")

    def _fail_waiting(self, reason: str) -> None:
        waiting = self._waiting
        for _, future, _ in waiting:
            if not future.done():
                fail(future, RedisUnavailable(reason, node=self.node))
        if self._commands:
            for _ in waiting:
                self._commands.pop()
        waiting.clear()

    def _flush(self) -> None:
        """Write what waits, as far as the window goes."""
        self._flush_is_due = False
        waiting, pending = self._waiting, self._pending
        if not waiting or self._paused or self._transport is None:  # a cut may have come first
            return
        count = min(len(waiting), WINDOW - len(pending))
        if count <= 0:
            return
        now = monotonic()
        packed: list[bytes] = []
        lanes: dict[float, list[asyncio.Future[Reply]]] = {}
        for _ in range(count):
            data, future, seconds = waiting.popleft()
            packed.append(data)
            pending.append(future)
            if seconds is not None:
                lane = lanes.get(seconds)
                if lane is None:
                    lanes[seconds] = [future]
                else:
                    lane.append(future)
        self._written += count
        self._writes.append((self._written, now))
        self._transport.write(b"".join(packed))
        for seconds, futures in lanes.items():
            self._deadlines.add(Write(self, self._written, seconds, futures), now)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.lost.done():
            return
        if len(data) >= _MUCH_BYTES:
            self.read_much = True
        pending, commands = self._pending, self._commands
        answered = 0
        next_reply = self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := next_reply()) is not _INCOMPLETE:
                if not pending:  # a reply to nothing: the order can't be trusted any more
                    self.cut("protocol")
                    return
                answered += 1
                future = pending.popleft()
                command = commands.popleft() if commands else None
                if isinstance(reply, Exception):
                    self._refused(future, reply, command)
                elif not future.done():
                    future.set_result(reply)
        except hiredis.ProtocolError:
            self.cut("protocol")
            return
        if answered:
            self._count_answers(answered)

    def _refused(
        self,
        future: asyncio.Future[Reply],
        error: Exception,
        command: tuple[Command, float | None, int] | None,
    ) -> None:
        if isinstance(error, RedisUnavailable):
            error.node = self.node
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
        self._overdue = False
        if self._finishing is not None and not self._pending:
            self.cut(self._finishing)
        elif self._waiting:
            self._flush()

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol: the server does not read fast enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        del exc
        self.cut("lost")

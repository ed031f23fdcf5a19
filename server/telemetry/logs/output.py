"""Writes log lines to a file descriptor: never blocks, never raises, keeps lines whole and in order."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

BACKLOG_BYTES = 1_048_576
# PIPE_BUF of Linux. POSIX promises 512 bytes, into which no line fits.
_LEAST_WHOLE_BYTES = 4096


class Writer(Protocol):
    """A way to write that does not block."""

    def write(self, data: bytes) -> int:
        """Write as much as fits now and return the number of bytes; raise BlockingIOError if nothing does."""

    def close(self) -> None:
        """Close what was opened."""


class LineOutput:
    """The lines of one process on a descriptor, usually standard output.

    A reader that stalls costs nothing but memory: lines wait, in order, up to `BACKLOG_BYTES`, and are written with the
    first line after it reads again. Lines beyond that are dropped, and their number is reported in their place. After a
    closed pipe or a full disk, lines are lost without an error.

    Args:
        descriptor: where to write.

    Attributes:
        describe_loss: renders the line that reports a number of dropped lines.
        whole_bytes: a line of up to so many bytes is never mixed with what other processes write there.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.describe_loss: Callable[[int], bytes] = lambda count: b"%d log lines dropped\n" % count
        self._writer = _open_writer(descriptor)
        self.whole_bytes = _whole_bytes(descriptor)
        self._lock = threading.RLock()
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._dropped = 0
        self._gathered: list[bytes] = []

    def write_soon(self, line: bytes) -> None:
        """Write a line with the others of this turn of the event loop: one system call for all of them."""
        if self._gathered:
            self._gathered.append(line)
            return
        try:
            asyncio.get_running_loop().call_soon(self._write_gathered)
        except RuntimeError:
            self.write(line)
        else:
            self._gathered.append(line)

    def write(self, line: bytes) -> None:
        """Write a line, which ends in a line break, or keep it for later."""
        with self._lock:
            if self._gathered:
                self._write_gathered()
            if self._backlog and not self._drain():
                self._keep(line)
                return
            rest = self._attempt(line)
            if rest:
                self._keep(rest)

    def _write_gathered(self) -> None:
        with self._lock:
            lines, self._gathered = self._gathered, []
            while lines:
                # Up to so many bytes, a pipe keeps together while other workers write to it, too.
                size, count = len(lines[0]), 1
                while count < len(lines) and size + len(lines[count]) <= self.whole_bytes:
                    size += len(lines[count])
                    count += 1
                self.write(b"".join(lines[:count]))
                del lines[:count]

    def flush(self, deadline_seconds: float = 1.0) -> None:
        """Wait for a stalled reader to take the backlog; what is left at the deadline is lost."""
        self._write_gathered()
        until = monotonic() + deadline_seconds
        with self._lock:
            while self._backlog and not self._drain() and (left := until - monotonic()) > 0:
                select.select([], [self.descriptor], [], left)

    def close(self) -> None:
        """Close what was opened beside the descriptor, which itself stays open."""
        self._writer.close()

    def _attempt(self, data: bytes) -> bytes:
        """Return what is left when no more fits now; nothing if all is written, or can never be."""
        while data:
            try:
                data = data[self._writer.write(data) :]
            except BlockingIOError:
                return data
            except OSError:
                return b""
        return b""

    def _keep(self, line: bytes) -> None:
        # A line of which a part is out already must be kept, or the next one would continue it.
        if self._backlog and self._backlog_bytes + len(line) > BACKLOG_BYTES:
            self._dropped += line.count(b"\n")
            return
        self._backlog.append(line)
        self._backlog_bytes += len(line)

    def _drain(self) -> bool:
        while self._backlog:
            line = self._backlog[0]
            rest = self._attempt(line)
            self._backlog_bytes -= len(line) - len(rest)
            if rest:
                self._backlog[0] = rest
                return False
            self._backlog.popleft()
            if not self._backlog and self._dropped:
                self._backlog.append(self.describe_loss(self._dropped))
                self._backlog_bytes = len(self._backlog[0])
                self._dropped = 0
        return True


def _whole_bytes(descriptor: int) -> int:
    """The length up to which a line is written whole or not at all; a nearly full pipe takes parts of longer ones."""
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        is_pipe = False
    return max(select.PIPE_BUF, _LEAST_WHOLE_BYTES) if is_pipe else sys.maxsize


def _open_writer(descriptor: int) -> Writer:
    """A way to write to the descriptor that does not block.

    The descriptor's own mode stays as it is, because its file description is shared with other processes, such as the
    shell and the master. A pipe is opened a second time instead, and a socket is written to with a flag.
    """
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # a process without standard output
        return _DescriptorWriter(descriptor)
    if stat.S_ISSOCK(mode):
        return _SocketWriter(socket.socket(fileno=os.dup(descriptor)))
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            return _DescriptorWriter(os.open(f"/proc/self/fd/{descriptor}", flags), is_ours=True)
        except OSError:  # another user's pipe, a reader that is gone, or no Linux
            return _PollingWriter(descriptor)
    return _DescriptorWriter(descriptor)


class _DescriptorWriter:
    """A regular file, or a descriptor that was opened here for writing without blocking."""

    __slots__ = ("_descriptor", "_is_ours")

    def __init__(self, descriptor: int, *, is_ours: bool = False) -> None:
        self._descriptor = descriptor
        self._is_ours = is_ours

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def close(self) -> None:
        if self._is_ours:
            os.close(self._descriptor)


class _SocketWriter:
    """A socket, as systemd's journal gives for standard output."""

    __slots__ = ("_connection",)

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        return self._connection.send(data, socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._connection.close()


class _PollingWriter:
    """A pipe that can't be opened again: writes one piece, which surely fits, when there is room."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        if not select.select([], [self._descriptor], [], 0)[1]:
            raise BlockingIOError
        return os.write(self._descriptor, data[: select.PIPE_BUF])

    def close(self) -> None:
        """Nothing was opened."""

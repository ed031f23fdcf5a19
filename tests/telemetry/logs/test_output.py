"""Whatever becomes of standard output, the process goes on."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from server.telemetry.logs.output import BACKLOG_BYTES, LineOutput
from tests.support.waiting import wait_until

LINE = b"x" * 999 + b"\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The ends of a pipe, to read from and to write to."""
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def read_available(descriptor: int) -> bytes:
    """Everything that a pipe holds now."""
    os.set_blocking(descriptor, False)
    taken = b""
    try:
        while chunk := os.read(descriptor, 1 << 16):
            taken += chunk
    except BlockingIOError:
        pass
    return taken


def numbered(number: int) -> bytes:
    """A line of a thousand bytes that tells its number."""
    return b"%06d" % number + LINE[6:]


def test_a_stalled_reader_stops_nothing(pipe: tuple[int, int]) -> None:
    """Nobody reads: writing goes on without waiting, and later every line comes whole and in order."""
    reading, writing = pipe
    output = LineOutput(writing)
    began = monotonic()
    for number in range(500):
        output.write(numbered(number))
    assert monotonic() - began < 2.0
    taken = b""
    while len(taken) < 500_000:
        taken += read_available(reading)
        output.flush(0.0)
    assert [numbered(number) for number in range(500)] == taken.splitlines(keepends=True)


def test_what_does_not_fit_is_counted(pipe: tuple[int, int]) -> None:
    """A full backlog drops lines, and a line in their place says how many."""
    reading, writing = pipe
    output = LineOutput(writing)
    output.describe_loss = lambda count: b"lost %d\n" % count
    total = BACKLOG_BYTES // len(LINE) + 500
    for number in range(total):
        output.write(numbered(number))
    taken = b""
    for _ in range(100):
        taken += read_available(reading)
        output.flush(0.0)
    lines = taken.splitlines(keepends=True)
    lost = int(lines[-1].split()[1])
    assert lost > 0
    assert [numbered(number) for number in range(total - lost)] == lines[:-1]
    output.write(b"next\n")
    assert b"next\n" == read_available(reading)


def test_a_closed_pipe_is_no_error(pipe: tuple[int, int]) -> None:
    """The reader has gone: lines are lost in silence."""
    reading, writing = pipe
    output = LineOutput(writing)
    output.write(LINE)
    os.close(reading)
    for _ in range(100):
        output.write(LINE)
    output.flush()


def test_the_shared_mode_is_left_alone(pipe: tuple[int, int]) -> None:
    """The descriptor still blocks for whoever else writes to it: the shell, the master process."""
    _, writing = pipe
    before = fcntl.fcntl(writing, fcntl.F_GETFL)
    LineOutput(writing).write(LINE)
    assert before == fcntl.fcntl(writing, fcntl.F_GETFL)
    assert os.get_blocking(writing)


def test_a_socket_as_standard_output() -> None:
    """Under systemd standard output is a socket: it never blocks either."""
    left, right = socket.socketpair()
    with left, right, ExitStack() as closing:
        output = LineOutput(left.fileno())
        closing.callback(output.close)
        for number in range(2000):
            output.write(numbered(number))
        right.setblocking(False)
        taken = b""
        while len(taken) < 500_000:
            taken += right.recv(1 << 20)
            output.flush(0.0)
        lines = taken.splitlines(keepends=True)[:-1]
    assert [numbered(number) for number in range(len(lines))] == lines


def test_a_pipe_that_can_not_be_opened_again(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pipe belongs to another user, its own descriptor is asked before each write."""
    reading, writing = pipe

    def refuse(*_arguments: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        output = LineOutput(writing)
    for number in range(200):
        output.write(numbered(number))
    taken = b""
    while len(taken) < 200_000:
        taken += read_available(reading)
        output.flush(0.0)
    assert [numbered(number) for number in range(200)] == taken.splitlines(keepends=True)


def test_no_standard_output_at_all() -> None:
    """A process whose standard output is closed writes nothing and goes on."""
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    LineOutput(writing).write(LINE)


def test_flushing_waits_for_a_slow_reader(pipe: tuple[int, int]) -> None:
    """At the end of a process its last lines wait for a reader that still reads."""
    reading, writing = pipe
    output = LineOutput(writing)
    for number in range(300):
        output.write(numbered(number))
    taken: list[bytes] = []

    def read_all() -> None:
        while sum(map(len, taken)) < 300_000:
            taken.append(os.read(reading, 4096))

    reader = threading.Thread(target=read_all)
    reader.start()
    output.flush(30.0)
    reader.join(30.0)
    assert 300_000 == sum(map(len, taken))


def test_flushing_gives_up(pipe: tuple[int, int]) -> None:
    """A reader that never comes back holds up the end of a process for the deadline only."""
    _, writing = pipe
    output = LineOutput(writing)
    for number in range(300):
        output.write(numbered(number))
    began = monotonic()
    output.flush(0.05)
    assert monotonic() - began < 5.0


def test_a_regular_file(tmp_path: Path) -> None:
    """Lines are appended where the shell's redirection stands."""
    with (tmp_path / "log").open("wb") as file:
        file.write(b"header\n")
        file.flush()
        LineOutput(file.fileno()).write(LINE)
    assert b"header\n" + LINE == (tmp_path / "log").read_bytes()


async def test_lines_of_one_turn_stay_in_order(tmp_path: Path) -> None:
    """What is written at once does not overtake what was to be written soon."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        output = LineOutput(file.fileno())
        output.write_soon(b"1\n")
        output.write_soon(b"2\n")
        assert b"" == path.read_bytes()
        output.write(b"3\n")
        output.write_soon(b"4\n")
        output.flush()
        output.write_soon(b"5\n")
        await wait_until(lambda: path.read_bytes() == b"1\n2\n3\n4\n5\n", "all of them, in their order")


async def test_every_line_of_a_turn_that_is_lost_is_counted(pipe: tuple[int, int]) -> None:
    """They are written together, and counted one by one."""
    reading, writing = pipe
    output = LineOutput(writing)
    output.describe_loss = lambda count: b"lost %d\n" % count
    total = (BACKLOG_BYTES // len(LINE) + 500) // 4 * 4
    for number in range(0, total, 4):
        for part in range(4):
            output.write_soon(numbered(number + part))
        await asyncio.sleep(0)
    taken = b""
    for _ in range(100):
        taken += read_available(reading)
        output.flush(0.0)
    lines = taken.splitlines(keepends=True)
    assert f"lost {total - len(lines) + 1}\n".encode() == lines[-1]
    assert total > len(lines)


async def test_lines_of_one_turn_are_mixed_with_nobody_elses(pipe: tuple[int, int]) -> None:
    """A pipe takes 4096 bytes whole or not at all, and parts of more: another process could write into a line."""
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
    os.write(writing, b"f" * 2999 + b"\n")
    output = LineOutput(writing)
    for number in range(6):
        output.write_soon(numbered(number))
    await asyncio.sleep(0)
    taken = read_available(reading)
    os.write(writing, b"other\n")
    output.flush()
    taken += read_available(reading)
    lines = taken.splitlines(keepends=True)[1:]
    assert [numbered(number) for number in range(6)] == [line for line in lines if line != b"other\n"]
    assert b"other\n" in lines

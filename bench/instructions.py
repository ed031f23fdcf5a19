"""Instructions of a request, counted by valgrind's callgrind: the same on a busy machine and on a quiet one.

A time depends on what else the machine does; the number of instructions that a process executes does not, within a few
percent. It says nothing of the kernel's share, nor of what waits for memory. What the process does by itself meanwhile
is counted apart, without a load, and taken off.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.harness.features import small_limits
from bench.harness.machine import Cores
from bench.harness.subjects import Launch, Subject, bare, running, service
from bench.harness.table import as_text
from bench.harness.world import World, world
from server.errors import CommandError

_CONNECTIONS = 32
_IDLE_SECONDS = 5.0
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
# Everything takes fifty times as long as usual.
_PATIENCE = {
    "CACHE_DEADLINE_MS": "60000",
    "DATABASE_ACQUIRE_TIMEOUT_MS": "60000",
    "DATABASE_QUERY_TIMEOUT_MS": "60000",
    "RATE_LIMIT_DEADLINE_MS": "60000",
    "REDIS_CONNECT_TIMEOUT_MS": "60000",
}


@dataclass(frozen=True, slots=True)
class Counted:
    """A subject, what it is asked, and with which status it answers."""

    name: str
    launch: Callable[[World], Launch]
    requests: Callable[[Subject], list[bytes]]
    status: int = 200


def measure(requests: int) -> list[tuple[str, int]]:
    """Print, and return, the instructions of each kind of request.

    Raises:
        CommandError: valgrind, its headers or a C compiler is missing.
    """
    for program, package in (("valgrind", "valgrind"), ("cc", "gcc")):
        if shutil.which(program) is None:
            raise CommandError(f"{program} is not installed; Debian's package is {package}")
    found: list[tuple[str, int]] = []
    with world(readers=_CONNECTIONS, cores=Cores.of_this_machine()) as surroundings:
        switch = _compile_switch(surroundings.folder)
        with running(service(surroundings), surroundings) as plain:
            reference = plain.ask()
        for counted in (
            Counted("bare aiohttp, the same bytes", lambda w: bare(w, reference), lambda s: s.requests()),
            Counted(
                "request id, timing, metrics, log line",
                service,
                lambda s: s.requests(path="/livez", anonymous=True),
            ),
            Counted("and the access token", service, lambda s: s.requests(path="/livez")),
            Counted("200: all of it", service, lambda s: s.requests()),
            Counted("304", service, lambda s: s.requests({"If-None-Match": s.ask().headers["etag"]}), 304),
            Counted("429", _refusing, lambda s: s.requests(), 429),
        ):
            found.append((counted.name, _count(surroundings, switch, counted, requests)))
            sys.stderr.write(f"{counted.name}: {found[-1][1]:,}\n")
    yardstick = found[0][1]
    rows = [(name, f"{number:,}", f"{number / yardstick:.2f}") for name, number in found]
    sys.stdout.write(as_text(("", "instructions/request", "of bare"), rows) + "\n")
    return found


def _refusing(surroundings: World) -> Launch:
    return service(surroundings, policies=small_limits(surroundings.folder, 1))


def _compile_switch(folder: Path) -> Path:
    switch = folder / "switch.so"
    source = Path(__file__).parent / "harness" / "switch.c"
    done = subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", switch, source], capture_output=True, check=False, text=True
    )
    if done.returncode != 0:
        raise CommandError(
            f"{source.name} does not compile; it needs the headers of valgrind:\n{done.stderr}"
        )
    return switch


def _count(surroundings: World, switch: Path, counted: Counted, requests: int) -> int:
    """The instructions of one request."""
    launch = counted.launch(surroundings)
    counts = surroundings.folder / f"callgrind-{time.monotonic_ns()}"
    launch = Launch(
        launch.name,
        [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counts}",
            sys.executable, "-m", "bench.harness.counted",
        ],
        {
            **launch.environment,
            **_PATIENCE,
            "COUNTED": "bare" if launch.name == "bare" else "service",
            "SWITCH": str(switch),
            "PROMETHEUS_MULTIPROC_DIR": str(_metrics_folder(surroundings)),
        },
    )  # fmt: skip
    with running(launch, surroundings) as subject, _connections(subject.port) as connections:
        load = counted.requests(subject)
        _exchange(connections, load, len(load) * 10, None)  # caches are filled, refusals known
        seconds, busy = _counting(
            subject, counts, 1, lambda: _exchange(connections, load, requests, counted.status)
        )
        idle_seconds, idle = _counting(subject, counts, 2, lambda: time.sleep(_IDLE_SECONDS))
    return round((busy - idle * seconds / idle_seconds) / requests)


def _metrics_folder(surroundings: World) -> Path:
    """Where the metrics go, as gunicorn's configuration would have made it."""
    folder = surroundings.folder / "metrics"
    folder.mkdir(exist_ok=True)
    return folder


def _counting(subject: Subject, counts: Path, number: int, action: Callable[[], None]) -> tuple[float, int]:
    """The seconds that an action takes, and the instructions of the subject meanwhile."""
    result = counts.with_name(f"{counts.name}.{number}")
    subject.process.send_signal(signal.SIGUSR1)
    began = time.monotonic()
    action()
    seconds = time.monotonic() - began
    subject.process.send_signal(signal.SIGUSR2)
    while not (total := _total(result)):
        time.sleep(0.1)
    return seconds, total


def _total(result: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        totals = re.search(r"^totals: (\d+)$", result.read_text(errors="replace"), re.MULTILINE)
        return int(totals[1]) if totals else 0
    return 0


@contextlib.contextmanager
def _connections(port: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=120))
            for _ in range(_CONNECTIONS)
        ]


def _exchange(
    connections: Sequence[socket.socket], load: Sequence[bytes], requests: int, expected: int | None
) -> None:
    """Send so many requests, one on each connection at a time.

    Raises:
        CommandError: an answer has another status.
    """
    for first in range(0, requests, len(connections)):
        for index, connection in enumerate(connections):
            connection.sendall(load[(first + index) % len(load)])
        for connection in connections:
            answer = b""
            while not is_whole(answer):
                answer += connection.recv(65_536)
            status = int(answer.split(b" ", 2)[1])
            if expected not in {None, status}:
                raise CommandError(f"an answer has status {status}, not {expected}")


def is_whole(answer: bytes) -> bool:
    """Whether these bytes are all of an HTTP answer."""
    end = answer.find(_HEAD_END)
    length = _LENGTH.search(answer[: end + 2])
    return end >= 0 and len(answer) >= end + len(_HEAD_END) + (int(length[1]) if length else 0)

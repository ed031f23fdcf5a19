"""Instructions of a request, counted by valgrind's callgrind: the same on a busy machine and on a quiet one.

A time depends on what else the machine does; the number of instructions that a process executes does not, within a few
percent. It says nothing of the kernel's share, nor of what waits for memory. Background work (health checks, history,
handing over metrics) stands still while the counter runs: under valgrind everything takes fifty times as long, so it
would run fifty times as often for each request.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import redis

from bench.harness.features import small_limits
from bench.harness.load import request_bytes
from bench.harness.machine import Cores, describe_machine
from bench.harness.results import Document
from bench.harness.subjects import Launch, Subject, bare, bearer, running, service
from bench.harness.table import as_text
from bench.harness.world import World, cards_of, world
from server.errors import CommandError

_CONNECTIONS = 32
_CARDS = 4
_WARM_UP = 320
# Of what asks the database, fewer requests are enough: they take long.
_DEAR = 4
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
    """A subject, what it is asked, and with which status it answers.

    Attributes:
        dearness: its requests are so many times fewer.
        empties_cache: before each request. It is sent alone, or those that ask for the same at once would share one
            look into the database.
    """

    name: str
    launch: Callable[[World], Launch]
    requests: Callable[[Subject], list[bytes]]
    status: int = 200
    dearness: int = 1
    empties_cache: bool = False


def measure(requests: int, *, only: str = "") -> Document:
    """Print, and return, the instructions of each kind of request.

    Args:
        requests: of each kind.
        only: count the kinds whose names begin with this, and the yardstick.

    Raises:
        CommandError: valgrind, its headers or a C compiler is missing.
    """
    found: list[tuple[str, int]] = []
    with counting_world() as (surroundings, kinds):
        switch = compile_library(surroundings.folder, "switch.c")
        for counted in kinds:
            if counted is kinds[0] or counted.name.startswith(only):
                found.append((counted.name, _count(surroundings, switch, counted, requests)))
                sys.stderr.write(f"{counted.name}: {found[-1][1]:,}\n")
    yardstick = found[0][1]
    rows = [(name, f"{number:,}", f"{number / yardstick:.2f}") for name, number in found]
    sys.stdout.write(as_text(("", "instructions/request", "of bare"), rows) + "\n")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "requests": requests,
        "rows": dict(found),
    }


@contextlib.contextmanager
def counting_world() -> Iterator[tuple[World, tuple[Counted, ...]]]:
    """What the subjects need, and the kinds of requests; the first is the yardstick.

    Raises:
        CommandError: valgrind or a C compiler is missing.
    """
    for program, package in (("valgrind", "valgrind"), ("cc", "gcc")):
        if shutil.which(program) is None:
            raise CommandError(f"{program} is not installed; Debian's package is {package}")
    with world(readers=_CONNECTIONS, cores=Cores.of_this_machine()) as surroundings:
        with running(service(surroundings), surroundings) as plain:
            reference = plain.ask()
        yield (
            surroundings,
            (
                Counted("bare aiohttp, the same bytes", lambda w: bare(w, reference), lambda s: s.requests()),
                Counted(
                    "request id, timing, metrics, log line",
                    service,
                    lambda s: s.requests(path="/livez", anonymous=True),
                ),
                Counted("and the access token", service, lambda s: s.requests(path="/livez")),
                Counted("200: all of it", service, lambda s: s.requests()),
                Counted(
                    "304", service, lambda s: s.requests({"If-None-Match": s.ask().headers["etag"]}), 304
                ),
                Counted("429", _refusing, lambda s: s.requests(), 429),
                Counted("a rating", service, _ratings, dearness=_DEAR),
                Counted(
                    "200 after a miss", service, lambda s: s.requests(), dearness=_DEAR, empties_cache=True
                ),
            ),
        )


def _ratings(subject: Subject) -> list[bytes]:
    """Ratings of every reader, of some cards in turn."""
    body = b'{"confidenceLevel": 4, "responseTime": 2300}'
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return [
        request_bytes(subject.port, f"/api/progress/cards/{card}", {**bearer(token), **headers}, method="PUT")
        + body
        for card in cards_of(subject.world)[:_CARDS]
        for token in subject.world.tokens
    ]


def _refusing(surroundings: World) -> Launch:
    return service(surroundings, policies=small_limits(surroundings.folder, 1))


def compile_library(folder: Path, name: str) -> Path:
    """A source of the harness, compiled for this interpreter.

    Raises:
        CommandError: its headers are missing.
    """
    source = Path(__file__).parent / "harness" / name
    library = folder / f"{source.stem}.so"
    headers = sysconfig.get_paths()["include"]
    done = subprocess.run(
        ["cc", "-shared", "-fPIC", f"-I{headers}", "-o", library, source],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise CommandError(
            f"{name} does not compile; it needs the headers of valgrind and Python:\n{done.stderr}"
        )
    return library


def _count(surroundings: World, switch: Path, counted: Counted, requests: int) -> int:
    """The instructions of one request."""
    counts = surroundings.folder / f"callgrind-{time.monotonic_ns()}"
    requests = requests // counted.dearness
    run_counted(surroundings, switch, counted, counts, requests, lambda: _total(counts) > 0)
    return round(_total(counts) / requests)


def run_counted(
    surroundings: World,
    library: Path,
    counted: Counted,
    counts: Path,
    requests: int,
    is_written: Callable[[], bool],
    *options: str,
) -> None:
    """Have a subject answer so many requests while callgrind counts.

    Args:
        surroundings: where it runs.
        library: what starts and stops the counting.
        counted: the kind of request.
        counts: what callgrind writes.
        requests: how many.
        is_written: whether it has.
        options: of callgrind, further ones.
    """
    launch = counted.launch(surroundings)
    launch = Launch(
        launch.name,
        [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counts}", *options,
            sys.executable, "-m", "bench.harness.counted",
        ],
        {
            **launch.environment,
            **_PATIENCE,
            "COUNTED": "bare" if launch.name == "bare" else "service",
            "SWITCH": str(library),
            "BEGUN": str(counts.with_suffix(".begun")),
            "PROMETHEUS_MULTIPROC_DIR": str(_metrics_folder(surroundings)),
        },
    )  # fmt: skip
    with running(launch, surroundings) as subject, _connections(subject.port) as connections:
        load = counted.requests(subject)
        _exchange(subject, connections, load, _WARM_UP, None)  # caches are filled, refusals known
        subject.process.send_signal(signal.SIGUSR1)
        while not counts.with_suffix(".begun").exists():
            time.sleep(0.1)
        if counted.empties_cache:
            with contextlib.closing(redis.Redis.from_url(surroundings.redis.url)) as client:
                _miss(subject, client, connections[0], load, requests, counted.status)
        else:
            _exchange(subject, connections, load, requests, counted.status)
        subject.process.send_signal(signal.SIGUSR2)
        while not is_written():
            time.sleep(0.1)


def _metrics_folder(surroundings: World) -> Path:
    """Where the metrics go, as gunicorn's configuration would have made it."""
    folder = surroundings.folder / "metrics"
    folder.mkdir(exist_ok=True)
    return folder


def _miss(
    subject: Subject,
    client: redis.Redis,
    connection: socket.socket,
    load: Sequence[bytes],
    requests: int,
    expected: int,
) -> None:
    """Send so many requests, each to an empty cache."""
    for number in range(requests):
        client.flushdb()
        _exchange(subject, [connection], [load[number % len(load)]], 1, expected)


def _total(counts: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        text = counts.with_name(f"{counts.name}.1").read_text(errors="replace")
        totals = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
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
    subject: Subject,
    connections: Sequence[socket.socket],
    load: Sequence[bytes],
    requests: int,
    expected: int | None,
) -> None:
    """Send so many requests, one on each connection at a time; the subject finds them all there at once.

    So what a turn of its event loop costs is always shared by as many, however busy the machine is.

    Raises:
        CommandError: an answer has another status.
    """
    for first in range(0, requests, len(connections)):
        subject.process.send_signal(signal.SIGSTOP)
        for index, connection in enumerate(connections):
            connection.sendall(load[(first + index) % len(load)])
        subject.process.send_signal(signal.SIGCONT)
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

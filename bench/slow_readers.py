"""What clients that do not read cost: a worker's memory before, while and after they ask for large study answers.

The service runs as in production, with one worker and its own settings, on all cores. So many users ask for a class at
the same moment and read nothing; meanwhile another client asks for the same answer and reads it, again and again.
"""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import statistics
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import psycopg2

from bench.harness.load import request_bytes
from bench.harness.machine import Cores
from bench.harness.subjects import Subject, bearer, running, service
from bench.harness.table import as_text
from bench.harness.world import world
from server.errors import CommandError

HEADINGS = ("", "memory, MB", "highest, MB", "of it unread, MB", "cut")
_ANYWHERE = Cores(frozenset(), frozenset())
_RECEIVE_BYTES = 4096
_CARD_BYTES = 4000
_WARMING_ASKS = 3
_DEADLINE_SECONDS = 120.0
_LOOK_SECONDS = 0.1
_MB = 1e6
_FILL = """
    INSERT INTO classes (id, name, is_published) VALUES (%(class)s, 'Large', true);
    INSERT INTO decks (id, class_id, name, is_published) VALUES (%(deck)s, %(class)s, 'Large', true);
    INSERT INTO flashcards (deck_id, question, answer, is_published)
    SELECT %(deck)s, 'Question ' || n, repeat('answer ', %(bytes)s / 7), true FROM generate_series(1, %(cards)s) AS n;
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """The worker at one time.

    Attributes:
        name: what is the case.
        memory_mb: resident.
        highest_mb: the highest since the moment before.
        unread_mb: what the service says that responses hold which wait for their readers.
        cuts: connections that were cut so far, by reason.
    """

    name: str
    memory_mb: float
    highest_mb: float
    unread_mb: float
    cuts: Counter[str]


@dataclass(slots=True)
class Reader:
    """A client that reads what it asks for, again and again.

    Attributes:
        answers_ms: how long each answer took, milliseconds.
        statuses: of the answers; 0 where there was none.
    """

    port: int
    path: str
    token: str
    answers_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It, for the length of the block."""
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join(_DEADLINE_SECONDS)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_DEADLINE_SECONDS)
        while not self._stopped.is_set():
            began = time.perf_counter()
            try:
                connection.request("GET", self.path, headers=bearer(self.token))
                response = connection.getresponse()
                response.read()
                self.statuses[response.status] += 1
            except (OSError, http.client.HTTPException):
                self.statuses[0] += 1
                connection.close()
            self.answers_ms.append((time.perf_counter() - began) * 1000)
            self._stopped.wait(_LOOK_SECONDS)
        connection.close()


def measure_slow_readers(
    readers: int, megabytes: float, *, calm_seconds: float = 12.0, settings: Mapping[str, str] | None = None
) -> tuple[list[Moment], Reader]:
    """Let so many clients ask for an answer and not read it, until nothing is left of them.

    Args:
        readers: how many.
        megabytes: of the answer.
        calm_seconds: until the last look: memory is given back at most every 10 s.
        settings: others than the service's own.

    Raises:
        CommandError: they are still there long after their deadline.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with world(readers=readers + 1, cores=_ANYWHERE) as surroundings, ExitStack() as stack:
        path = f"/api/classes/{_add_class(surroundings.database_url, megabytes)}/study?mode=all"
        launch = service(surroundings)
        launch = replace(launch, environment={**launch.environment, **(settings or {})})
        subject = stack.enter_context(running(launch, surroundings))
        worker = _Worker(subject)
        *slow, quick = surroundings.tokens
        for _ in range(_WARMING_ASKS):
            subject.ask(path, bearer(quick))
        moments = [worker.look("before")]
        reader = Reader(subject.port, path, quick)
        with reader.running():
            for token in slow:
                stack.enter_context(_unread(subject.port, path, token))
            worker.wait(
                lambda: worker.answers() >= readers + _WARMING_ASKS + reader.statuses.total(),
                "an answer to each",
            )
            moments.append(worker.look("while they do not read"))
            worker.wait(lambda: worker.unread_mb() == 0, "the end of all")
            moments.append(worker.look("when the last is cut"))
        time.sleep(calm_seconds)
        moments.append(worker.look("a little later"))
    return moments, reader


def print_slow_readers(readers: int, megabytes: float) -> None:
    """The same as a table on standard output."""
    moments, reader = measure_slow_readers(readers, megabytes)
    rows = [
        (
            moment.name,
            f"{moment.memory_mb:.0f}",
            f"{moment.highest_mb:.0f}",
            f"{moment.unread_mb:.0f}",
            _counts(moment.cuts),
        )
        for moment in moments
    ]
    sys.stdout.write(as_text(HEADINGS, rows) + "\n\n")
    sys.stdout.write(
        f"a client that reads: {_counts(reader.statuses)};"
        f" median {statistics.median(reader.answers_ms):.0f} ms, longest {max(reader.answers_ms):.0f} ms\n"
    )


def _counts(counter: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counter.items())) or "none"


def _add_class(database_url: str, megabytes: float) -> str:
    """A published class whose cards are so large together; its id."""
    class_id = str(uuid.uuid4())
    values = {
        "class": class_id,
        "deck": str(uuid.uuid4()),
        "bytes": _CARD_BYTES,
        "cards": max(1, round(megabytes * _MB / _CARD_BYTES)),
    }
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(_FILL, values)
    return class_id


@contextlib.contextmanager
def _unread(port: int, path: str, token: str) -> Iterator[None]:
    """A connection that has asked, and does not read."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        client.connect(("127.0.0.1", port))
        client.sendall(request_bytes(port, path, bearer(token)))
        yield


class _Worker:
    """The one worker of a subject, seen from outside."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        (self._process,) = psutil.Process(subject.process.pid).children()
        self._folder = Path(f"/proc/{self._process.pid}")

    def look(self, name: str) -> Moment:
        """What is to be seen now."""
        memory_mb = self._process.memory_info().rss / _MB
        cuts = Counter(
            {
                reason: int(value)
                for reason in ("timeout", "buffer", "connections")
                if (value := self._sum(f'http_unread_responses_cut_total{{reason="{reason}"}}'))
            }
        )
        return Moment(name, memory_mb, max(memory_mb, self._highest_mb()), self.unread_mb(), cuts)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Until something is the case."""
        until = time.monotonic() + _DEADLINE_SECONDS
        while not condition():
            if time.monotonic() > until:
                raise CommandError(f"{what}: not within {_DEADLINE_SECONDS:.0f} s")
            time.sleep(_LOOK_SECONDS)

    def unread_mb(self) -> float:
        """What the service says that responses hold which wait for their readers."""
        return self._sum("http_unread_response_bytes") / _MB

    def answers(self) -> int:
        """How many study answers have been made."""
        return int(self._sum("http_requests_total{", "/study"))

    def _highest_mb(self) -> float:
        """The highest resident memory since this was last asked, where the system lets it be set back."""
        lines = (self._folder / "status").read_text().splitlines()
        (highest,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        with contextlib.suppress(OSError):
            (self._folder / "clear_refs").write_text("5")
        return highest * 1024 / _MB

    def _sum(self, start: str, part: str = "") -> float:
        """What the series sum up to that start so and have such a part."""
        lines = self._subject.ask("/api/metrics").body.decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith(start) and part in line
        )

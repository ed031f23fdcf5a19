"""How much the log grows with each request: what a deployment has to carry away, keep and pay for.

The service runs as in production, with one worker, once in each format, and students study: each looks at the classes
and at one of them, draws cards, rates ten, and looks at the statistics, as users of `/livez` and of a wrong token do
beside them. What counts is all that has been written meanwhile.
"""

from __future__ import annotations

import gzip
import http.client
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from bench.harness.machine import Cores
from bench.harness.subjects import Subject, bearer, running, service
from bench.harness.table import as_text
from bench.harness.world import world
from server.errors import CommandError

FORMATS = ("json", "ecs", "gcp", "otel", "datadog", "console")
HEADINGS = ("LOG_FORMAT", "requests", "bytes each", "gzipped", "GB a day at 100/s", "gzipped")
_ANYWHERE = Cores(frozenset(), frozenset())
_RATINGS = 10
_GB_A_DAY = 100 * 86_400 / 1e9  # of a byte at 100 requests a second


@dataclass(frozen=True, slots=True)
class Volume:
    """What the requests of one run left in the log.

    Attributes:
        form: the LOG_FORMAT.
        requests: how many there were.
        each: bytes of the log for each of them.
        gzipped: the same, compressed as log collectors and logrotate do.
    """

    form: str
    requests: int
    each: float
    gzipped: float


def measure_log_volume(students: int, formats: Sequence[str] = FORMATS) -> list[Volume]:
    """Let so many students study with each format."""
    volumes = []
    with world(readers=students, cores=_ANYWHERE) as surroundings:
        launch = service(surroundings)
        for form in formats:
            with running(
                replace(launch, environment={**launch.environment, "LOG_FORMAT": form}), surroundings
            ) as subject:
                before = subject.log.stat().st_size
                requests = sum(_study(subject, token) for token in surroundings.tokens)
                written = _written(subject, before, requests)
            volumes.append(
                Volume(form, requests, len(written) / requests, len(gzip.compress(written)) / requests)
            )
            subject.forget_log()
    return volumes


def print_log_volume(students: int) -> None:
    """The same as a table on standard output."""
    rows = [
        (
            volume.form,
            str(volume.requests),
            f"{volume.each:.0f}",
            f"{volume.gzipped:.0f}",
            f"{volume.each * _GB_A_DAY:.1f}",
            f"{volume.gzipped * _GB_A_DAY:.2f}",
        )
        for volume in measure_log_volume(students)
    ]
    sys.stdout.write(as_text(HEADINGS, rows) + "\n")


def _written(subject: Subject, before: int, requests: int) -> bytes:
    """What has been logged since it was so long; the last request's line follows its answer."""
    until = time.monotonic() + 10
    while True:
        with subject.log.open("rb") as log:
            log.seek(before)
            written = log.read()
        if written.count(b"server.access") >= requests:
            return written
        if time.monotonic() > until:
            raise CommandError(f"{subject.log.name}: not every request has a line")
        time.sleep(0.01)


def _study(subject: Subject, token: str) -> int:
    """One student's requests, over one connection as a browser keeps it; how many they were."""
    headers, path = bearer(token), subject.world.path
    asked = 0
    with closing(http.client.HTTPConnection("127.0.0.1", subject.port, timeout=30)) as connection:

        def ask(method: str, path: str, who: dict[str, str], body: str | None = None) -> bytes:
            nonlocal asked
            asked += 1
            connection.request(method, path, body, {**who, "Content-Type": "application/json"})
            return connection.getresponse().read()

        ask("GET", "/livez", {})
        ask("GET", "/api/stats", bearer("expired"))
        ask("GET", "/api/classes", headers)
        ask("GET", path, headers)
        cards = json.loads(ask("GET", f"{path}/study?mode=all&limit={_RATINGS}", headers))["flashcards"]
        for card in cards:
            ask("PUT", f"/api/progress/cards/{card['id']}", headers, '{"confidenceLevel": 4}')
        ask("GET", "/api/stats", headers)
    return asked

"""The real service, its worker included, with what it writes to its log."""

from __future__ import annotations

import json
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import NO_LIMITS
from tests.connections.raw import connected, get
from tests.support.service import Service, running_service
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Watched:
    """A running service and its log."""

    service: Service
    log: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.service.port

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log's lines about an event."""
        written = (json.loads(line) for line in self.log.read_text().splitlines())
        return [line for line in written if line["message"] == event]

    def wait_for_line(self, event: str, **fields: object) -> dict[str, Any]:
        """The first line about an event that has these fields."""
        found: list[dict[str, Any]] = []

        def is_written() -> bool:
            found.extend(line for line in self.lines(event) if fields.items() <= line.items())
            return bool(found)

        eventually(is_written, f"{event} {fields}")
        return found[0]

    def metric(self, series: str) -> float:
        """A number of the metrics; 0 if there is none."""
        _, text = self.service.request("GET", "/api/metrics")
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == series]
        return float(values[0]) if values else 0.0

    def wait_until_alone(self) -> None:
        """Wait until no connection of earlier requests is left, not even the one that counts them."""
        eventually(lambda: self.metric("http_connections") <= 1, "other connections are closed")
        # The service may not have noticed yet that its client closed the last one. It looks at connections in turn:
        # at the end of another that it closes itself, it has.
        with connected(self.port) as client:
            client.send(get("/livez", "Connection: close"))
            assert 200 == client.last_answer().status


Serve = Callable[..., Any]


@pytest.fixture(scope="session")
def serve(shared_postgres: Any, shared_redis: Any, database_template: str) -> Serve:
    """Start a service with one worker: `serve(open_files=256, MAX_CONNECTIONS="4")`.

    The limit of open files is that of each of its processes; what is written in capitals is a setting.
    """

    @contextmanager
    def start(*, open_files: int | None = None, **settings: str) -> Iterator[Watched]:
        variables = {"WEB_CONCURRENCY": "1", "RATE_LIMITS_FILE": str(NO_LIMITS), **settings}
        with tempfile.NamedTemporaryFile() as log, ExitStack() as stack:
            with limited_files(open_files):  # which its processes inherit
                service = stack.enter_context(
                    running_service(
                        shared_postgres, shared_redis, database_template, output=log.file, **variables
                    )
                )
            yield Watched(service, Path(log.name))

    return start


@contextmanager
def limited_files(limit: int | None) -> Iterator[None]:
    """Let this process have no more than so many files open during the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft if limit is None else limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

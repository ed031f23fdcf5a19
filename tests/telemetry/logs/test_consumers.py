"""What a log pipeline makes of the lines: two workers under load, Debian's rsyslog, and DuckDB's answers."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from server.development import EmbeddedServer
from server.development.processes import child_process
from server.settings import ROOT
from tests.support.programs import for_want_of
from tests.support.service import running_service
from tests.support.waiting import eventually
from tests.telemetry.counted_load import TRUSTED_PROXIES, Answered, send_counted

PAGE = (ROOT / "docs" / "logging.md").read_text()
REQUESTS = int(os.environ.get("MASTERY_TEST_LOG_REQUESTS", "1000"))
EXAMPLE_ID = "req_7d1f0c5ce1a94c0f9c3a1d0a9e6b2f10"
RSYSLOG = shutil.which("rsyslogd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

pytestmark = pytest.mark.timeout(900)


def block(heading: str, language: str) -> str:
    """The first block of code below a heading of the page."""
    _, found, below = PAGE.partition(f"# {heading}\n")
    text = re.search(rf"^```{language}\n(.*?)^```$", below, re.MULTILINE | re.DOTALL)
    assert found, heading
    assert text is not None, heading
    return text[1]


def replaced(text: str, places: dict[str, str]) -> str:
    """The text with each of the page's examples replaced by ours; it has to hold them all."""
    for example, ours in places.items():
        assert example in text
        text = text.replace(example, ours)
    return text


@pytest.fixture(scope="module")
def written(
    shared_postgres: EmbeddedServer,
    shared_redis: EmbeddedServer,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[Answered]]:
    """The log of two workers from start to end, and the requests that they have answered."""
    path = tmp_path_factory.mktemp("log") / "mastery.log"
    # A busy machine's slow queries are lines, too, which the sender can't know of.
    variables = {"TRUSTED_PROXIES": TRUSTED_PROXIES, "SLOW_QUERY_MS": "600000"}
    with (
        path.open("ab") as output,
        running_service(
            shared_postgres, shared_redis, database_template, output=output, **variables
        ) as service,
    ):
        answered = send_counted(service, REQUESTS)
    assert REQUESTS == len(answered)
    return path, answered


@pytest.fixture(scope="module")
def collected(written: tuple[Path, list[Answered]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that rsyslog has made of the log, configured as the page says."""
    if RSYSLOG is None:
        pytest.skip(for_want_of("rsyslogd", "rsyslog"))
    log, _ = written
    folder = tmp_path_factory.mktemp("rsyslog")
    collected, refused, configuration = (
        folder / "collected.log",
        folder / "refused.log",
        folder / "rsyslog.conf",
    )
    places = {
        "/var/spool/rsyslog": str(folder),
        "/var/log/mastery.log": str(log),
        "/var/log/mastery-collected.log": str(collected),
        "/var/log/mastery-refused.log": str(refused),
    }
    configuration.write_text(replaced(block("rsyslog", "rsyslog"), places))
    lines = log.read_bytes().count(b"\n")

    def has_all() -> bool:
        done = [path.read_bytes().count(b"\n") for path in (collected, refused) if path.exists()]
        return sum(done) >= lines

    command = [RSYSLOG, "-n", "-f", str(configuration), "-i", str(folder / "pid")]
    with (folder / "output").open("wb") as output, child_process(command, output=output):
        eventually(has_all, "rsyslog has written every line", seconds=120)
    assert not refused.exists(), refused.read_text()
    return collected


@pytest.fixture(scope="module", params=["as it was written", "through rsyslog"])
def log(
    request: pytest.FixtureRequest, written: tuple[Path, list[Answered]]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the page's view over the lines."""
    path = written[0] if request.param == "as it was written" else request.getfixturevalue("collected")
    with closing(duckdb.connect()) as connection:
        connection.execute(replaced(block("DuckDB", "sql"), {"/var/log/mastery.log": str(path)}))
        yield connection


def ask(log: duckdb.DuckDBPyConnection, question: str, **places: str) -> list[tuple[Any, ...]]:
    """The rows of one of the page's queries."""
    return log.execute(replaced(block(question, "sql"), places)).fetchall()


def test_every_request_is_found_exactly_once(
    log: duckdb.DuckDBPyConnection, written: tuple[Path, list[Answered]]
) -> None:
    """By its id, with the method, route, status, time, client and address that its sender knows."""
    rows = log.execute(
        'SELECT request_id, "http.method", "http.route", "http.status", duration_ms, client_ip,'
        " coalesce(CAST(user_id AS VARCHAR), client_ip)"
        " FROM log WHERE message = 'http.request' AND request_id LIKE 'counted-%'"
    ).fetchall()
    expected = [
        (
            request.request_id, request.plan.method, request.plan.route, request.status, request.duration_ms,
            request.plan.address, request.plan.who,
        )
        for request in written[1]
    ]  # fmt: skip
    assert sorted(expected) == sorted(rows)


def test_the_slowest_routes(log: duckdb.DuckDBPyConnection, written: tuple[Path, list[Answered]]) -> None:
    """The page's query names the routes with the number of requests, the 95th percentile and the slowest time."""
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for request in written[1]:
        durations[request.plan.method, request.plan.route].append(request.duration_ms)
    expected = {
        route: (len(times), sorted(times)[math.ceil(0.95 * len(times)) - 1], max(times))
        for route, times in durations.items()
    }
    rows = ask(log, "Which routes are the slowest?")
    assert rows == sorted(rows, key=lambda row: -row[3])
    others = {"/readyz", "/livez", "/api/health"}  # asked for while the service started
    found = {(method, route): tuple(more) for method, route, *more in rows if route not in others}
    assert expected == found


def test_who_was_refused(log: duckdb.DuckDBPyConnection, written: tuple[Path, list[Answered]]) -> None:
    """The page's query counts the refusals of each user and of each stranger's address."""
    expected = Counter(request.plan.who for request in written[1] if request.status == 429)
    assert len(expected) >= 2
    assert expected == {who: number for who, number, *_ in ask(log, "Who was refused?")}


def test_all_lines_of_a_request(log: duckdb.DuckDBPyConnection, written: tuple[Path, list[Answered]]) -> None:
    """The page's query finds what was said during one request: an audit event beside the line of the request."""
    expected = {
        "/api/admin/classes": ["audit.class_created", "http.request"],
        "/api/stats?days=nonsense": ["http.request"],
    }
    for path, messages in expected.items():
        ids = [
            request.request_id
            for request in written[1]
            if request.plan.path == path and request.status != 429
        ]
        assert ids
        for request_id in ids[:10]:
            rows = ask(log, "What was logged during this request?", **{EXAMPLE_ID: request_id})
            assert messages == sorted(message for *_, message, _ in rows)

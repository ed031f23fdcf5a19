"""The bench measures what it says: its own parts, its locks, and the page that it writes. No figure is tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
import xml.etree.ElementTree as ET
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench.harness.chart import Bar, Panel, bar_chart
from bench.harness.deployment import Deployment, dynos_at_the_limit
from bench.harness.features import LIMIT, check_features, small_limits
from bench.harness.generator import generate, percentile_ms, read_requests
from bench.harness.load import Load, LoadFailed, request_bytes, run_load
from bench.harness.machine import Cores, cpu_seconds, on_cores, usable_cores, worker_memory_mb
from bench.harness.peers import PeerMissing, fastify, go
from bench.harness.report import PAGE, SECTIONS, chart, fill_page
from bench.harness.results import (
    GOALS,
    check_goals,
    read_document,
    rows_as_json,
    rows_from_json,
    write_document,
)
from bench.harness.rounds import Round, Row, Target, medians, run_round
from bench.harness.scenarios import lag_percentile_ms
from bench.harness.subjects import Answer, SubjectFailed, bare, running
from bench.harness.table import HEADINGS, as_markdown, as_text, cells
from bench.harness.world import World, furnish
from bench.instructions import is_whole
from bench.starts import measure_starts, medians_of_starts, start_lines
from server.api.routes import ROUTES
from server.development import EmbeddedServer
from server.ratelimit.limits_file import load_rate_limits
from server.settings import ROOT
from tests.support.programs import for_want_of

SVG = "{http://www.w3.org/2000/svg}"


def a_round(per_second: float, *, cpu_us: float = 100.0) -> Round:
    return Round(per_second, p50_ms=1.0, p99_ms=2.0, cpu_us=cpu_us, memory_mb=50.0, core_share=1.0)


def rows(**rates: float) -> dict[str, Row]:
    return {name: medians(name, [a_round(rate)]) for name, rate in rates.items()}


def a_document() -> dict[str, object]:
    return {
        "date": "2026-01-02",
        "machine": {"processor": "A <fast> one & only", "cores": 2, "python": "3.11.7"},
        "conditions": {
            "generator": "wrk",
            "connections": 64,
            "readers": 100,
            "rounds": 5,
            "secondsPerRound": 5.0,
        },
        "rows": rows_as_json(rows(service=700.0, bare=1000.0, fastify=600.0)),
        "missing": {"fastapi": "no wheel"},
    }


def test_a_row_is_the_median_of_each_column() -> None:
    """Columns are taken by themselves, and the slowest and the fastest round stay visible."""
    row = medians(
        "service", [a_round(30.0, cpu_us=1.0), a_round(10.0, cpu_us=3.0), a_round(20.0, cpu_us=2.0)]
    )

    assert (20.0, 2.0) == (row.median.per_second, row.median.cpu_us)
    assert (10.0, 30.0, 3) == (row.slowest, row.fastest, row.rounds)


def test_the_table_shows_the_fastest_first_and_its_share_of_bare() -> None:
    """Every row says how much of bare aiohttp it reaches."""
    lines = cells(rows(service=650.0, bare=1000.0))

    assert [("bare", "1.00"), ("service", "0.65")] == [(line[0], line[2]) for line in lines]


def test_the_table_leaves_the_share_empty_without_bare() -> None:
    """Where bare aiohttp was not measured there is nothing to compare with."""
    assert [""] == [line[2] for line in cells(rows(service=650.0))]


def test_text_and_markdown_have_a_cell_for_every_heading() -> None:
    """Both forms of a table show the same cells, the text aligned."""
    lines = cells(rows(service=650.0, bare=1000.0))

    text = as_text(HEADINGS, lines).splitlines()
    markdown = as_markdown(HEADINGS, lines).splitlines()
    assert 3 == len(text)
    assert text[0].index("requests/s") + len("requests/s") == text[1].index("1,000") + len("1,000")
    assert {len(HEADINGS) + 1} == {line.count("|") for line in markdown}


def test_rows_survive_the_file_of_results(tmp_path: Path) -> None:
    """The report is made of the file alone."""
    found = rows(service=650.0, bare=1000.0)

    write_document({"rows": rows_as_json(found)}, tmp_path / "results.json")

    assert found == rows_from_json(read_document(tmp_path / "results.json"))


def test_goals_are_met_missed_or_not_measured() -> None:
    """A goal is judged by the document; what was not measured is not called met."""
    found = {check.goal.name: (check.figure, check.verdict) for check in check_goals(a_document())}

    assert (0.7, "met") == found["throughput, of bare aiohttp"]
    assert (None, "not measured") == found["throughput, of FastAPI"]
    assert (1.0, "not met") == found["p99, of Fastify's"]
    slow = {**a_document(), "rows": rows_as_json(rows(service=600.0, bare=1000.0))}
    assert "not met" == next(check for check in check_goals(slow) if "bare" in check.goal.name).verdict


def test_the_chart_is_an_svg_with_a_bar_for_each_row() -> None:
    """It is well-formed whatever a name holds, its bars are in proportion, and it knows a dark background."""
    text = bar_chart(
        [Panel("A & B", [Bar("<ours>", 50.0, "50", ours=True), Bar("theirs", 100.0, "100")])], note="here"
    )

    root = ET.fromstring(text)  # noqa: S314 - our own
    bars = root.findall(f"{SVG}rect")
    assert ["ours", "bar"] == [bar.get("class") for bar in bars]
    assert pytest.approx(0.5) == float(bars[0].get("width", 0)) / float(bars[1].get("width", 1))
    assert "<ours>" in [element.text for element in root.findall(f"{SVG}text")]
    assert "prefers-color-scheme: dark" in text


def test_the_chart_of_a_document_shows_every_row_twice() -> None:
    """Throughput and latency, with machine and date below."""
    root = ET.fromstring(chart(a_document()))  # noqa: S314 - our own

    texts = [element.text or "" for element in root.findall(f"{SVG}text")]
    assert 6 == len(root.findall(f"{SVG}rect"))
    assert 2 == texts.count("bare aiohttp")
    assert any("2026-01-02" in text and "A <fast> one & only" in text for text in texts)


def test_the_page_has_a_marker_for_every_section() -> None:
    """What is measured is shown, and no marker waits for something that nobody measures."""
    markers = re.findall(r"<!-- bench:([a-z]+) -->", PAGE.read_text(encoding="utf-8"))

    assert sorted(SECTIONS) == sorted(markers)


def test_filling_the_page_changes_nothing_between_the_sections() -> None:
    """Written by hand and by the bench stay apart, and the same results give the same page again."""
    page = PAGE.read_text(encoding="utf-8")

    filled = fill_page(page, a_document())

    outside = re.compile(r"(?<=-->\n).*?(?=<!-- /bench -->)", re.DOTALL)
    assert outside.sub("", page) == outside.sub("", filled)
    assert filled == fill_page(filled, a_document())
    assert "| Mastery | 700 | 0.70 |" in filled
    assert "FastAPI is missing: no wheel." in filled


def test_a_deployment_carries_what_its_narrowest_part_does() -> None:
    """Dynos until Redis has no time left; more masters move that point."""
    small = Deployment(dynos=2, masters=1, worker_us=100.0, redis_us=25.0)
    large = Deployment(dynos=8, masters=1, worker_us=100.0, redis_us=25.0)

    assert (14_000.0, "the dynos") == (small.carries, small.limit)
    assert (28_000.0, "Redis") == (large.carries, large.limit)
    assert pytest.approx(12.0) == dynos_at_the_limit(100.0, 25.0, masters=3)


def test_the_lag_percentile_counts_only_what_came_between_two_readings() -> None:
    """Ticks before the load say nothing about the load."""
    before = {0.001: 100.0, 0.01: 100.0, float("inf"): 100.0}
    after = {0.001: 100.0, 0.01: 199.0, float("inf"): 200.0}

    assert 10.0 == lag_percentile_ms(before, after, 0.99)
    assert float("inf") == lag_percentile_ms(before, after, 1.0)
    assert lag_percentile_ms(after, after, 0.99) is None


def test_the_locks_of_the_peers_are_pinned_and_name_no_registry() -> None:
    """They install the same files from wherever a machine gets its packages."""
    packages = json.loads((ROOT / "bench/peers/fastify/package-lock.json").read_text())["packages"]

    assert "resolved" not in {key for package in packages.values() for key in package}
    assert all("integrity" in package for name, package in packages.items() if name)
    for peer in ("fastapi", "limiters"):
        python = (ROOT / "bench" / "peers" / peer / "requirements.txt").read_text()
        assert "//" not in python
        pins = re.findall(r"^\S+==", python, re.MULTILINE)
        assert len(pins) == len(re.findall(r"==\S+.*\\\n    --hash=sha256:", python))


def test_a_peer_without_its_compiler_is_left_out_with_the_reason(
    surroundings: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on, and says what to install."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PeerMissing, match=r"apt-get install golang-go golang-github-gomodule-redigo-dev"):
        go(surroundings)
    with pytest.raises(PeerMissing, match="no node"):
        fastify(surroundings)


def test_the_wanted_figures_are_where_the_run_puts_them() -> None:
    """A goal whose path nobody writes would stay 'not measured' for ever."""
    files = ("service.py", "harness/scenarios.py", "__main__.py")
    source = "".join((ROOT / "bench" / file).read_text() for file in files)
    places = {part.split("/")[0] for goal in GOALS for part in goal.path.split(" / ")}

    assert set() == {place for place in places if f'"{place}"' not in source}


def test_small_limits_are_policies_that_the_service_takes(tmp_path: Path) -> None:
    """All route groups are there, and reads have as many policies as asked for."""
    groups = {route.limits for route in ROUTES if route.limits is not None}

    for count in (0, 1, 8):
        limits = load_rate_limits(small_limits(tmp_path, 5, policies=count), required_groups=groups)
        charges = limits.make_charges(
            "reads", user_id=uuid.uuid4(), address=IPv4Address("192.0.2.1"), named=None, plan=None
        )
        assert [5] * count == [charge.policy.limit for charge in charges]


def test_children_run_where_they_are_put() -> None:
    """A child of the block stays on its cores; we ourselves go back to ours."""
    cores = usable_cores()
    if not cores:
        pytest.skip("this system places no processes")
    ask = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]

    with on_cores(frozenset({cores[0]})):
        placed = subprocess.run(ask, capture_output=True, text=True, check=True).stdout

    assert [cores[0]] == json.loads(placed)
    assert cores == usable_cores()


def test_cores_are_divided_only_where_both_sides_get_some() -> None:
    """More workers than cores leave nothing for the load: then all is shared."""
    divided = Cores.of_this_machine(workers=1)
    shared = Cores.of_this_machine(workers=10_000)

    assert not divided.subject & divided.beside
    assert divided.divided == bool(divided.beside)
    assert not shared.divided


def test_the_cost_of_a_process_counts_its_children() -> None:
    """A worker's time is its master's cost, and memory is that of the larger one."""
    before = cpu_seconds(os.getpid())
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(1, flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        cost = cpu_seconds(os.getpid()) - before
        memory = worker_memory_mb(process.pid)
        process.communicate(b"\n")

    assert cost >= 0.25
    assert 1 < memory < worker_memory_mb(os.getpid())


async def test_our_generator_counts_every_answer_once() -> None:
    """What it reports is what the server has answered, refusals apart, in turn through all its requests."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=429 if request.path == "/refused" else 200, text="x" * 100_000)

    app = web.Application()
    app.router.add_get("/{path}", answer)
    async with TestServer(app) as server:
        port = server.port or 0
        requests = [request_bytes(port, path, {}) for path in ("/fine", "/refused")]
        latencies, refused, broken, seconds = await generate(port, requests, connections=3, seconds=0.3)

    assert len(seen) == latencies.total() > 1
    assert seen.count("/refused") == refused
    assert abs(seen.count("/fine") - refused) <= 1
    assert 0 == broken
    assert seconds >= 0.3
    assert 0 < percentile_ms(latencies, 0.5) <= percentile_ms(latencies, 1.0)


async def test_our_generator_sends_no_more_than_it_is_asked_to() -> None:
    """What requests cost is compared under loads that all can carry: with a pause between the requests."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestServer(app) as server:
        port = server.port or 0
        latencies, _, broken, seconds = await generate(
            port, [request_bytes(port, "/", {})], connections=4, seconds=0.3, per_second=40.0
        )

    assert 0 == broken
    assert 1 <= latencies.total() <= 40 * seconds + 2 * 4


async def test_our_generator_counts_connections_that_fail() -> None:
    """A server that hangs up has not answered."""

    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", hang_up)
    async with TestServer(app) as server:
        port = server.port or 0
        latencies, _, broken, _ = await generate(
            port, [request_bytes(port, "/", {})], connections=4, seconds=0.1
        )

    assert (0, 4) == (latencies.total(), broken)


def test_requests_travel_to_the_generator_unchanged(tmp_path: Path) -> None:
    """Whatever bytes they hold, each is preceded by its length."""
    requests = [b"GET /1 HTTP/1.1\r\n\r\n", b"12\n34"]
    file = tmp_path / "requests"
    file.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in requests))

    assert requests == read_requests(file)


@pytest.mark.parametrize("generator", ["wrk", "ours"])
def test_a_load_without_answers_is_a_failure(generator: str, unused_tcp_port: int) -> None:
    """No figures are made up for a server that is not there."""
    if generator == "wrk" and not any(
        (Path(folder) / "wrk").exists() for folder in os.environ["PATH"].split(os.pathsep)
    ):
        pytest.skip(for_want_of("wrk"))
    load = Load(unused_tcp_port, [request_bytes(unused_tcp_port, "/", {})], connections=2, seconds=1)

    with pytest.raises(LoadFailed):
        run_load(load, generator=generator)


@pytest.fixture
def surroundings(tmp_path: Path, database_url: str, own_redis: EmbeddedServer) -> World:
    """The bench's world, with a cache that no other test has filled."""
    anywhere = Cores(frozenset(), frozenset())
    return furnish(tmp_path, cores=anywhere, redis=own_redis, database_url=database_url, readers=3)


def test_the_service_has_the_features_that_the_comparison_claims(surroundings: World) -> None:
    """The same check that the peers pass: headers, 304, 401, 429 at the limit, the access line, metrics."""
    assert f"429 after {LIMIT}" in check_features(surroundings, "service")


@pytest.mark.long
def test_a_start_is_measured_step_by_step(surroundings: World) -> None:
    """The steps follow each other, up to the first answer; the table has them all, and the processor time."""
    (start,) = measure_starts(surroundings, times=1)

    assert 4 == len(start.steps)
    assert sorted(start.steps.values()) == list(start.steps.values())
    assert 0 < start.steps[next(iter(start.steps))] < start.seconds
    assert [*start.steps, "CPU of all its processes until then"] == [
        line[0] for line in start_lines(medians_of_starts([start]))
    ]


def test_a_round_measures_the_subject_and_nothing_else(surroundings: World) -> None:
    """Bare aiohttp answers the bytes it was given; a round counts its requests, its time and its memory."""
    reference = Answer(200, {"content-type": "application/json"}, b'{"decks":[]}')
    with running(bare(surroundings, reference), surroundings) as subject:
        answer = subject.ask()
        one, figures = run_round(Target("bare", subject), seconds=1, connections=2, generator="ours")

        assert (b'{"decks":[]}', "application/json") == (answer.body, answer.headers["content-type"])
        assert figures.requests > 0 == figures.refused == figures.broken
        assert 0 < one.cpu_us < 1e6
        assert 0 < one.memory_mb < 1000


def test_a_subject_that_answers_otherwise_ends_the_run(surroundings: World) -> None:
    """Nobody is compared by how fast it says something else."""
    reference = Answer(200, {"content-type": "application/json"}, b"{}")
    with (
        running(bare(surroundings, reference), surroundings) as subject,
        pytest.raises(SubjectFailed, match="answered 200 instead of 304"),
    ):
        run_round(Target("bare", subject, status=304), seconds=1, connections=2, generator="ours")


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", False),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", False),
    ],
)
def test_the_end_of_an_answer_is_seen(answer: bytes, *, whole: bool) -> None:
    """An answer ends with its body, or with its head where it has none."""
    assert whole is is_whole(answer)

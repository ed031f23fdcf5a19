"""Traces as a collector receives them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp.http import SERVER_SOFTWARE

from server.development import EmbeddedServer
from server.settings import ROOT, Settings
from server.telemetry.traces import ExportLog, _described
from tests.api.conftest import Api, Course, StartApi
from tests.conftest import run_sql
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.support.service import running_service
from tests.support.waiting import wait_until
from tests.telemetry.conftest import Lines

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OtlpReceiver]:
    """A running collector, and an exporter that does not wait long before it sends."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture
async def api(collector: OtlpReceiver, settings: Settings, start_api: StartApi) -> Api:
    """The service, with its traces going to the collector."""
    return await start_api(replace(settings, otlp_endpoint=f"{collector.url}/"))


def names(spans: list[ReceivedSpan]) -> list[str]:
    """The spans' names."""
    return [span.name for span in spans]


async def test_a_request_is_a_span_and_its_operations_are_spans_below_it(
    api: Api, course: Course, collector: OtlpReceiver
) -> None:
    """The limiter, each look into the cache and each query by its name, within the time of their request."""
    deck = course.decks["Analysis"]
    response = await api.get(f"/api/decks/{deck}/flashcards")
    (request,) = await collector.wait_for(1)
    assert ("GET /api/decks/{deckId}/flashcards", "SERVER", "", False) == (
        request.name, request.kind, request.parent_id, request.is_error,
    )  # fmt: skip
    children = collector.children_of(request)
    assert {"rate_limit.decide", "cache.read", "list_deck_cards", "cache.fill"} <= set(names(children)), (
        names(children)
    )
    for child in children:
        assert request.trace_id == child.trace_id
        assert request.began_ns <= child.began_ns <= child.ended_ns <= request.ended_ns
    query = next(child for child in children if child.name == "list_deck_cards")
    assert ("CLIENT", {"db.system.name": "postgresql", "db.query.summary": "list_deck_cards"}) == (
        query.kind, query.attributes,
    )  # fmt: skip
    read = next(child for child in children if child.name == "cache.read")
    assert ("CLIENT", "redis") == (read.kind, read.attributes["db.system.name"])
    expected = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": "/api/decks/{deckId}/flashcards",
        "http.response.status_code": 200,
        "http.response.body.size": int(response.headers["Content-Length"]),
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": SERVER_SOFTWARE,
        "user.id": str(api.people["user"].user_id),
        "mastery.request_id": response.headers["X-Request-ID"],
        "mastery.rate_limit": "allowed",
        "mastery.cache": "MISS",
    }
    assert expected == request.attributes
    assert str(deck) not in repr(collector.spans)


async def test_the_resource_says_what_sends(api: Api, collector: OtlpReceiver) -> None:
    """Service, version, environment and process, as the conventions name them."""
    await api.get("/livez")
    await collector.wait_for(1)
    assert {
        "service.name",
        "service.version",
        "deployment.environment.name",
        "process.pid",
    } <= collector.resources[0].keys()
    assert "mastery" == collector.resources[0]["service.name"]


async def test_the_caller_is_the_parent(api: Api, collector: OtlpReceiver) -> None:
    """A traceparent makes the request part of the caller's trace, with its state, and the log lines too."""
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        response = await api.get("/nowhere", headers=headers)
    (request,) = await collector.wait_for(1)
    assert (TRACE, PARENT, "vendor=1") == (request.trace_id, request.parent_id, request.state)
    assert TRACE == response.headers["X-Trace-ID"]
    (line,) = [event for event in events if event["event"] == "http.request"]
    assert TRACE == line["trace_id"]


async def test_a_trace_that_begins_here_is_found_by_the_request_id(api: Api, collector: OtlpReceiver) -> None:
    """An id that we give a request has the trace's in it; one of the caller's stands beside it; the log has both."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        given = (await api.get("/livez")).headers
        offered = {"X-Request-ID": "req_of_the_gateway_in_front_of_us_01"}
        own = (await api.get("/livez", headers=offered)).headers
    first, second = await collector.wait_for(2)
    assert given["X-Request-ID"] == given["X-Trace-ID"] == f"req_{first.trace_id}"
    assert own["X-Request-ID"] == own["X-Trace-ID"] == second.attributes["mastery.request_id"]
    lines = [event for event in events if event["event"] == "http.request"]
    assert [first.trace_id, second.trace_id] == [line["trace_id"] for line in lines]


async def test_a_caller_that_does_not_sample_gets_no_spans(api: Api, collector: OtlpReceiver) -> None:
    """The sampled flag is respected: what is not wanted is neither recorded nor sent."""
    await api.get("/api/classes", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await api.get("/livez")
    assert ["GET /livez"] == names(await collector.wait_for(1))
    assert [] == [span for span in collector.spans if span.trace_id == TRACE]


async def test_the_sampler_of_the_environment_decides(
    collector: OtlpReceiver, settings: Settings, start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and _HEADERS say what they always say."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "cards")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=blue,team=learning")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=7")
    api = await start_api(replace(settings, otlp_traces_endpoint=f"{collector.url}/v1/traces"))
    await api.get("/readyz")
    await api.get("/livez", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert ["GET /livez"] == names(await collector.wait_for(1))
    assert ("cards", "blue", "learning") == tuple(
        collector.resources[0][name] for name in ("service.name", "deployment.environment.name", "team")
    )
    assert "7" == collector.headers[0]["x-tenant"]


@pytest.mark.parametrize(
    ("method", "path", "name", "attributes"),
    [
        (
            "GET",
            "/no/such/path",
            "GET",
            {"http.response.status_code": 404, "mastery.error_code": "not_found"},
        ),
        (
            "PROPFIND",
            "/livez",
            "HTTP",
            {
                "http.request.method": "_OTHER",
                "http.request.method_original": "PROPFIND",
                "http.response.status_code": 405,
            },
        ),
    ],
)
async def test_a_client_cannot_invent_names(
    api: Api, collector: OtlpReceiver, method: str, path: str, name: str, attributes: dict[str, object]
) -> None:
    """Neither an unknown method nor an unknown path is in a span's name; a client's mistake is no error of ours."""
    await api.request(method, path, documented=False)
    (request,) = await collector.wait_for(1)
    assert (name, False) == (request.name, request.is_error)
    assert attributes.items() <= request.attributes.items()
    assert set() == {"http.route", "error.type"} & request.attributes.keys()


def test_a_long_method_is_cut() -> None:
    """Where a parser lets any word pass as a method, a span holds no more of it than the log."""
    expected = {
        "http.request.method": "_OTHER",
        "http.request.method_original": "A" * 32,
        "url.scheme": "https",
        "http.route": "/livez",
    }
    assert ("HTTP /livez", expected) == _described("A" * 40, "https", "/livez")


async def test_an_error_of_ours_is_an_error(
    api: Api, course: Course, collector: OtlpReceiver, database_url: str
) -> None:
    """A query that fails names its error; a request that ends as 500 or above has the error status and its code."""
    run_sql(database_url, "ALTER TABLE decks RENAME TO gone")
    await api.get(f"/api/decks/{course.decks['Analysis']}/flashcards", documented=False)
    (request,) = await collector.wait_for(1)
    assert (True, 503, "schema") == (
        request.is_error, request.attributes["http.response.status_code"], request.attributes["error.type"],
    )  # fmt: skip
    failed = [span for span in collector.children_of(request) if span.is_error]
    assert [("find_published_decks", "UndefinedTable")] == [
        (span.name, span.attributes["error.type"]) for span in failed
    ]


async def test_a_transaction_shows_its_queries(api: Api, course: Course, collector: OtlpReceiver) -> None:
    """Each query, the first of which begins it, and COMMIT, in their order."""
    await api.post("/api/sessions", json={"deckIds": [str(course.decks["Analysis"])]})
    (request,) = await collector.wait_for(1)
    queries = [
        span.name
        for span in collector.children_of(request)
        if span.attributes.get("db.system.name") == "postgresql"
    ]
    assert ["find_published_decks", "create_session", "commit"] == queries[-3:]


async def test_what_goes_on_after_the_answer_is_not_part_of_it(
    collector: OtlpReceiver, settings: Settings, start_api: StartApi, course: Course
) -> None:
    """A value that is loaded anew in the background adds nothing to the request that was answered with the old one."""
    api = await start_api(
        replace(settings, otlp_endpoint=collector.url, cache_ttl_seconds=1, cache_stale_seconds=60)
    )
    path = f"/api/decks/{course.decks['Analysis']}/flashcards"
    await api.get(path)

    async def is_stale() -> bool:
        return (await api.get(path)).headers["X-Cache"] == "STALE"

    def stale() -> list[ReceivedSpan]:
        return [span for span in collector.requests() if span.attributes["mastery.cache"] == "STALE"]

    await wait_until(is_stale, "a value that is no longer fresh")
    await wait_until(lambda: bool(stale()), "the span of its request")
    for request in stale():
        assert ["rate_limit.decide", "cache.read"] == names(collector.children_of(request))


async def test_the_last_spans_are_sent_before_the_end(
    settings: Settings, start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown sends what waits for its turn."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    async with otlp_receiver() as receiver:
        api = await start_api(replace(settings, otlp_endpoint=receiver.url))
        await api.get("/livez")
        assert [] == receiver.spans
        await api.client.close()
        assert ["GET /livez"] == names(receiver.requests())


async def test_a_collector_that_stands_still_costs_no_request_anything(
    collector: OtlpReceiver, settings: Settings, start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are answered while the exporter waits, also more of them than its queue takes; so is the shutdown."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    collector.answers.clear()
    api = await start_api(replace(settings, otlp_endpoint=collector.url))
    await api.get("/livez")
    await wait_until(lambda: len(collector.headers) > 0, "an export that gets no answer")
    for _ in range(20):
        response = await api.get("/livez")
        assert (
            float(response.headers["X-Response-Time"].removesuffix("ms")) < 5000
        )  # the exporter waits for ten seconds
    with structlog.testing.capture_logs() as events:
        began = time.monotonic()
        await api.client.close()
        # Ten seconds is the exporter's own timeout, thirty its shutdown's.
        assert time.monotonic() - began < 9
    assert "tracing.spans_lost" in [event["event"] for event in events]
    attempts = len(collector.headers)
    collector.answers.set()
    await wait_until(
        lambda: "last-spans" not in {thread.name for thread in threading.enumerate()},
        "the exporter has ended",
    )
    assert attempts == len(collector.headers)  # what waited behind the last attempt is given up


async def test_a_collector_that_is_away_is_one_line_a_minute(
    settings: Settings, start_api: StartApi, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first failure is an event of ours; the others until a minute later are counted, and none is a record."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    now, before = 1000.0, -1
    monkeypatch.setattr("server.telemetry.traces.monotonic", lambda: now)
    events: list[Any] = []

    def failures() -> list[int]:
        return [event["unsaid_before"] for event in events if event["event"] == "tracing.export_failed"]

    with structlog.testing.capture_logs() as captured:
        events = captured
        api = await start_api(replace(settings, otlp_endpoint=f"http://127.0.0.1:{unused_tcp_port}"))
        (taker,) = [
            handler
            for handler in logging.getLogger("opentelemetry").handlers
            if isinstance(handler, ExportLog)
        ]

        async def another_failure() -> bool:
            assert 200 == (await api.get("/livez")).status
            return taker.unsaid > before

        await wait_until(another_failure, "the first failure")
        await wait_until(lambda: failures() == [0], "its line")
        before = taker.unsaid
        await wait_until(another_failure, "another failure")
        assert [0] == failures()
        now += 60

        async def next_line() -> (
            bool
        ):  # with a request each, as the last batch may have failed before the minute was over
            assert 200 == (await api.get("/livez")).status
            return len(failures()) == 2

        await wait_until(next_line, "the next line")
        assert failures()[1] > 0
        await api.client.close()
    assert taker not in logging.getLogger("opentelemetry").handlers


async def test_workers_send_their_last_spans_before_they_end(
    collector: OtlpReceiver,
    shared_postgres: EmbeddedServer,
    own_redis: EmbeddedServer,
    database_template: str,
) -> None:
    """Two workers under gunicorn: whatever they have answered has arrived when the service has ended."""
    traces = {f"{number:032x}" for number in range(1, 31)}

    def use_service() -> None:
        with running_service(
            shared_postgres,
            own_redis,
            database_template,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="600000",
        ) as service:
            for trace in traces:
                assert 200 == service.request("GET", "/livez", traceparent=f"00-{trace}-{1:016x}-01")[0]
            assert [] == [span for span in collector.spans if span.trace_id in traces]

    await asyncio.to_thread(use_service)
    assert traces <= {span.trace_id for span in collector.spans}


def test_a_minutes_failures_are_counted_once(logged: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line says how many there were since the one before; afterwards, records go where they went before."""
    library = logging.getLogger("tests.exporter")
    now = 0.0
    monkeypatch.setattr("server.telemetry.traces.monotonic", lambda: now)
    taker = ExportLog(library.name)
    now = 1000.0
    for count in (1, 3, 1, 2):
        for _ in range(count):
            library.warning("away")
        now += 60.0
    assert [0, 0, 2, 0] == [line["unsaid_before"] for line in logged()]
    taker.close()
    library.warning("as before")
    assert ("as before", "tests.exporter") == (logged()[-1]["message"], logged()[-1]["logger"])


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the service's modules."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_the_extra_the_start_says_so() -> None:
    """The variable and what to install are named, in one sentence, before anything starts."""
    done = run_python(
        "import os, sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "os.environ.update(DATABASE_URL='postgresql://h/d', REDIS_URL='redis://h', SECRET_KEY='k' * 32,\n"
        "                  OTEL_EXPORTER_OTLP_ENDPOINT='http://127.0.0.1:4318')\n"
        "from server.__main__ import main\n"
        "sys.exit(main(['serve']))"
    )
    assert 2 == done.returncode
    (line,) = done.stderr.splitlines()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in line
    assert "requirements-otel.txt" in line
    assert "`otel`" in line


def test_switched_off_nothing_of_it_is_there() -> None:
    """Without an endpoint neither the exporter nor what makes spans is imported."""
    done = run_python(
        "import sys, server.app\n"
        "from server.settings import Settings\n"
        "settings = Settings(database_url='postgresql://h/d', redis_url='redis://h', secret_key='k' * 32)\n"
        "server.app.create_app(settings)\n"
        "print({'opentelemetry.sdk.trace', 'server.telemetry.traces'} & set(sys.modules))"
    )
    assert "set()" == done.stdout.strip(), done.stderr

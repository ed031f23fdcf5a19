"""Request ids, trace ids, and the times that every response tells."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from itertools import product

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from pytest_aiohttp import AiohttpClient

from server.api.whole_response import pairs_of
from server.middleware.headers import StandardHeaders
from server.middleware.tracing import request_id_of, trace_context_of, tracing
from server.settings import Settings
from server.telemetry.context import trace_id_of
from server.telemetry.timings import Timings
from tests.api.conftest import Api, Course, StartApi
from tests.support.waiting import wait_until

NEW_ID = re.compile(r"req_[0-9a-f]{32}")
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"

ACCEPTED_IDS = ["a" * 20, "a" * 200, "A-Za-z0-9._:+/=-0123", "01890a5d-ac96-774b-bcce-b302099a8057", "=" * 20]
REFUSED_IDS = [
    "", "a" * 19, "a" * 201, "a" * 19 + " ", "a" * 10 + " " + "a" * 10, "a" * 20 + ";", "a" * 20 + '"', "é" * 20,
    "a" * 20 + "\t" + "b", "<script>alert(1)</script>", "a" * 20 + "{}", "a" * 20 + "%0a", "a" * 20 + "\\n",
]  # fmt: skip
# What a request object can hold even though a client can't send it: the rule does not depend on the parser.
FORGED_IDS = [
    "a" * 20 + "\n",
    "a" * 20 + '\n{"level":"error"}',
    "a" * 20 + "\r\nSet-Cookie: x=1",
    "a" * 20 + "\0",
]


async def test_a_request_id_of_the_caller_comes_back(api: Api) -> None:
    """20 to 200 characters of the accepted alphabet are echoed, also on a 404."""
    for path, offered in product(("/livez", "/nowhere"), ACCEPTED_IDS):
        response = await api.get(path, headers={"X-Request-ID": offered})
        assert [offered] == response.headers.getall("X-Request-ID")


async def test_a_refused_request_id_is_neither_echoed_nor_logged(api: Api) -> None:
    """Everything else is replaced by a new id, and appears nowhere."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        for offered in REFUSED_IDS:
            response = await api.get("/nowhere", headers={"X-Request-ID": offered})
            assert NEW_ID.fullmatch(response.headers["X-Request-ID"]), offered
            assert not offered or offered not in await response.text()
    assert len(REFUSED_IDS) == len([event for event in events if event["event"] == "http.request"])
    for event in events:
        assert NEW_ID.fullmatch(event["request_id"])
        assert not any(offered and offered in repr(event) for offered in REFUSED_IDS)


@pytest.mark.parametrize("offered", FORGED_IDS)
def test_a_forged_line_is_never_an_id(offered: str) -> None:
    """A line break in an id can not begin a log line or a header of its own."""
    request = make_mocked_request("GET", "/", headers={"X-Request-ID": offered})
    assert NEW_ID.fullmatch(request_id_of(request))


async def test_every_request_gets_an_id_of_its_own(api: Api) -> None:
    """Two requests on one connection do not share an id."""
    ids = {(await api.get("/livez")).headers["X-Request-ID"] for _ in range(5)}
    assert 5 == len(ids)


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", TRACE),
        (f"00-{TRACE}-{PARENT}-00", TRACE),
        (f"00-{TRACE}-{PARENT}-ff", TRACE),
        (f"01-{TRACE}-{PARENT}-01", TRACE),
        (f"fe-{TRACE}-{PARENT}-01-what-comes-later", TRACE),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"00-{TRACE}-{PARENT}-01-", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{TRACE[:-1]}-{PARENT}-01", None),
        (f"00-{TRACE}0-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        (f"0-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}-1", None),
        (f"00-{TRACE}-{PARENT}-0g", None),
        (f" 00-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}-01\n", None),
        (f"00_{TRACE}_{PARENT}_01", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_a_trace_id_comes_of_a_valid_traceparent(traceparent: str, expected: str | None) -> None:
    """W3C Trace Context, section 3.2: anything malformed is as if it were not there."""
    request = make_mocked_request("GET", "/", headers={"traceparent": traceparent})
    context = trace_context_of(request)
    assert expected == (None if context is None else context.trace_id)


@pytest.mark.parametrize(
    ("flags", "states", "expected_flags", "expected_state"),
    [
        ("01", [], "01", None),
        ("00", ["a=1"], "00", "a=1"),
        ("03", ["a=1,b=2", " c=3 "], "03", "a=1,b=2,c=3"),
        ("ff", ["", "a=1", ","], "03", "a=1"),
        ("01", ["a=" + "x" * 510], "01", "a=" + "x" * 510),
        ("01", ["a=" + "x" * 511], "01", None),
        ("01", ["a=é"], "01", None),
    ],
)
def test_a_trace_context_is_passed_on(
    flags: str, states: list[str], expected_flags: str, expected_state: str | None
) -> None:
    """The parent and its list of vendors' state go on unchanged; flags that nobody knows do not."""
    headers = CIMultiDict(
        [("traceparent", f"00-{TRACE}-{PARENT}-{flags}"), *(("tracestate", s) for s in states)]
    )
    context = trace_context_of(make_mocked_request("GET", "/", headers=headers))
    assert context is not None
    passed_on = context.headers()
    assert f"00-{TRACE}-{PARENT}-{expected_flags}" == passed_on["traceparent"]
    assert expected_state == passed_on.get("tracestate")


async def test_the_trace_id_is_answered(api: Api) -> None:
    """X-Trace-ID is the trace-id of the traceparent, else the request id."""
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert TRACE == (await api.get("/livez", headers=headers)).headers["X-Trace-ID"]
    plain = await api.get("/livez", headers={"traceparent": "nonsense"})
    assert plain.headers["X-Request-ID"] == plain.headers["X-Trace-ID"]


def test_a_trace_begins_with_the_request() -> None:
    """Without a traceparent the trace's id is made from the request's, always 32 hexadecimal digits, never zeros."""
    assert TRACE == trace_id_of(f"req_{TRACE}")
    others = {
        trace_id_of(offered)
        for offered in (
            f"req_{'0' * 32}",
            f"req_{TRACE.upper()}",
            f"req_{TRACE}0",
            "of-the-gateway-in-front-1",
        )
    }
    assert 4 == len(others)
    for trace_id in others:
        assert re.fullmatch(r"(?!0{32})[0-9a-f]{32}", trace_id)
    assert trace_id_of("of-the-gateway-in-front-1") in others


async def parts_of(api: Api, path: str) -> list[str]:
    """The names in a response's Server-Timing, whose total is also its X-Response-Time."""
    response = await api.get(path)
    timing = response.headers["Server-Timing"]
    assert re.fullmatch(r"[a-z]+;dur=[0-9]+\.[0-9]{2}(, [a-z]+;dur=[0-9]+\.[0-9]{2})*", timing)
    times = {name: float(time) for name, time in re.findall(r"([a-z]+);dur=([0-9.]+)", timing)}
    assert f"{times['total']:.2f}ms" == response.headers["X-Response-Time"]
    assert all(time <= times["total"] for time in times.values())
    return list(times)


async def test_server_timing_names_the_parts_that_happened(api: Api, course: Course) -> None:
    """A part appears only where it happened: the second reader of cached content needs no database."""
    path = f"/api/decks/{course.decks['Analysis']}/flashcards"
    assert ["total", "db", "cache", "limit"] == await parts_of(api, path)
    assert ["total", "cache", "limit"] == await parts_of(api, path)
    assert ["total"] == await parts_of(api, "/livez")
    assert ["total", "limit"] == await parts_of(api, "/nowhere")


def test_overlapping_operations_count_once(settings: Settings) -> None:
    """Two queries at the same time are as long as the longer one."""
    timings = Timings()
    timings.begin("db")
    timings.begin("db")
    timings.end("db")
    timings.end("db")
    timings.seconds["db"] = 0.0125
    elapsed = timings.read()
    headers = dict(pairs_of(StandardHeaders(settings).of("id", "trace", elapsed)))
    assert f"total;dur={elapsed.total}, db;dur=12.50" == headers["Server-Timing"]


@pytest.mark.parametrize(
    ("good_ms", "poor_ms", "expected"),
    [(60_000, 120_000, "Good"), (0, 60_000, "Needs Improvement"), (0, 0, "Poor")],
)
async def test_the_rating_follows_the_settings(
    settings: Settings, start_api: StartApi, good_ms: int, poor_ms: int, expected: str
) -> None:
    """Good below the first threshold, Poor from the second on, Needs Improvement between them."""
    api = await start_api(replace(settings, rating_good_ms=good_ms, rating_poor_ms=poor_ms))
    assert expected == (await api.get("/nowhere")).headers["X-Performance-Rating"]


async def test_a_request_that_is_abandoned_has_a_line(
    settings: Settings, aiohttp_client: AiohttpClient
) -> None:
    """The slow ones are those that clients give up: the line is there, with 499, its id, its route and its time."""
    begun = asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application(
        middlewares=[tracing(headers=StandardHeaders(settings), trusted=settings.trusted_proxies)]
    )
    app.router.add_get("/decks/{id}", wait)
    request_id = "the-one-that-is-given-up-01"

    with structlog.testing.capture_logs() as events:
        client = await aiohttp_client(app)  # its server cancels when the client disconnects
        request = asyncio.create_task(client.get("/decks/1", headers={"X-Request-ID": request_id}))
        await begun.wait()
        request.cancel()
        await wait_until(lambda: bool(events), "the request's line")
    (line,) = events
    assert ("http.request", 499, request_id, "GET", "/decks/{id}", "127.0.0.1", 0) == (
        line["event"], line["http.status"], line["request_id"], line["http.method"], line["http.route"],
        line["client_ip"], line["response_bytes"],
    )  # fmt: skip
    assert line["duration_ms"] > 0


async def test_a_refusal_is_counted_and_has_its_code(api: Api) -> None:
    """A 429 is among the errors by code, and its line says why."""
    await api.services.limiter.block("ip:127.0.0.1", duration_ms=60_000)
    with structlog.testing.capture_logs() as events:
        assert 429 == (await api.get("/api/classes", by=None)).status
    (line,) = [event for event in events if event["event"] == "http.request"]
    assert (429, "rate_limited", "denied") == (line["http.status"], line["error_code"], line["rate_limit"])
    metrics = await (await api.get("/api/metrics")).text()
    assert '\nerrors_total{code="rate_limited"} 1.0\n' in metrics


async def test_the_access_line_says_what_happened(api: Api, course: Course) -> None:
    """One line a request: route template, status, times and who, and never the path."""
    card = course.cards["r1"]
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        await api.put(f"/api/progress/cards/{card}", json={"confidenceLevel": 9})
    (line,) = [event for event in events if event["event"] == "http.request"]
    assert (
        "PUT", "/api/progress/cards/{flashcardId}", 400, str(api.people["user"].user_id), "127.0.0.1", "invalid",
        "allowed",
    ) == (
        line["http.method"], line["http.route"], line["http.status"], line["user_id"], line["client_ip"],
        line["error_code"], line["rate_limit"],
    )  # fmt: skip
    assert str(card) not in repr(events)
    assert {"duration_ms", "limit_ms"} <= line.keys()

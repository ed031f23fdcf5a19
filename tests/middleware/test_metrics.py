"""Request metrics: what is counted under which labels, and that nothing is altered on the way."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from aiohttp import ClientConnectionError, web
from aiohttp.test_utils import make_mocked_request
from aiohttp.typedefs import Handler
from aiohttp_prometheus_exporter.middleware import prometheus_middleware_factory
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from pytest_aiohttp import AiohttpClient

from server.errors import NotFound
from server.middleware.metrics import metrics_middleware
from server.telemetry.context import RequestContext, TraceContext, current_request
from server.telemetry.metrics.index import Metrics
from tests.support.waiting import wait_until


@pytest.fixture
def metrics() -> Metrics:
    """An index of one's own."""
    return Metrics()


async def answer(request: web.Request) -> web.Response:
    """The real request arrives at the handler."""
    return web.Response(text=f"{request.method} {request.match_info.get('id')} {request.remote}")


def application(
    metrics: Metrics, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.Application:
    """One route, measured; errors of the domain become responses outside of the measuring."""

    @web.middleware
    async def outside(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotFound as error:
            return web.Response(status=error.status)

    app = web.Application(middlewares=[outside, metrics_middleware(metrics)])
    app.router.add_route("*", "/decks/{id}", handler)
    return app


def responses(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    """How many responses there were by method, route template and status."""
    pattern = (
        r'^http_request_duration_seconds_count\{method="(.*?)",path_template="(.*?)",'
        r'status_code="(.*?)"\} (\S+)$'
    )
    found = re.findall(pattern, metrics.render_text("")[0].decode(), re.MULTILINE)
    return {(method, route, status): float(count) for method, route, status, count in found}


async def test_a_route_is_counted_by_its_template(metrics: Metrics, aiohttp_client: AiohttpClient) -> None:
    """Requests for a thousand decks are one series, and the handler gets the real request."""
    client = await aiohttp_client(application(metrics, answer))
    for number in range(5):
        response = await client.get(f"/decks/{number}")
        assert f"GET {number} 127.0.0.1" == await response.text()
    assert {("GET", "/decks/{id}", "200"): 5.0} == responses(metrics)


async def test_what_a_caller_invents_is_no_label(metrics: Metrics, aiohttp_client: AiohttpClient) -> None:
    """Paths that no route matches share a template, methods that nobody knows share a name."""
    client = await aiohttp_client(application(metrics, answer))
    for path in ("/a", "/b/c", "/decks"):
        await client.get(path)
    for method in ("PROPFIND", "MKCOL", "PURGE"):
        assert f"{method} 1 127.0.0.1" == await (await client.request(method, "/decks/1")).text()
    assert {("GET", "__not_matched__", "404"): 3.0, ("OTHER", "/decks/{id}", "200"): 3.0} == responses(
        metrics
    )


async def test_errors_are_counted_under_their_status(metrics: Metrics, aiohttp_client: AiohttpClient) -> None:
    """An error of the domain has its own status, an HTTP exception too, anything else is a 500."""
    failures = iter([NotFound(), web.HTTPConflict(), RuntimeError("bug")])

    async def fail(_request: web.Request) -> web.Response:
        raise next(failures)

    client = await aiohttp_client(application(metrics, fail))
    assert [404, 409, 500] == [(await client.get("/decks/1")).status for _ in range(3)]
    assert {("GET", "/decks/{id}", status): 1.0 for status in ("404", "409", "500")} == responses(metrics)
    text = metrics.render_text("")[0].decode()
    for name in ("NotFound", "HTTPConflict", "RuntimeError"):
        assert f'http_exceptions_total{{exception_type="{name}"' in text


async def test_an_exception_passes_untouched(metrics: Metrics, aiohttp_client: AiohttpClient) -> None:
    """Outside, an exception is the same object, with the cause and the context that it had."""
    seen: list[BaseException] = []

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValueError as error:
            seen.append(error)
            return web.Response()

    async def fail(_request: web.Request) -> web.Response:
        try:
            int("x")
        except ValueError as error:
            if seen:
                raise ValueError("without a cause")  # noqa: B904 - the context alone
            raise ValueError("with a cause") from error
        raise AssertionError

    app = web.Application(middlewares=[observe, metrics_middleware(metrics)])
    app.router.add_get("/", fail)
    client = await aiohttp_client(app)
    await client.get("/")
    await client.get("/")
    caused, plain = seen
    assert isinstance(caused.__cause__, ValueError)
    assert plain.__cause__ is None
    assert not plain.__suppress_context__
    assert isinstance(plain.__context__, ValueError)


def test_computing_takes_time_too(metrics: Metrics) -> None:
    """A handler that never waits is measured like any other, also where the loop's clock stands still."""

    async def compute(_request: web.Request) -> web.Response:
        until = time.perf_counter() + 0.25
        while time.perf_counter() < until:
            pass
        return web.Response()

    async def one_request() -> None:
        await metrics_middleware(metrics)(make_mocked_request("GET", "/"), compute)

    uvloop.run(one_request())
    buckets = re.findall(
        r'^http_request_duration_seconds_bucket\{le="(.*?)",.*\} (\S+)$',
        metrics.render_text("")[0].decode(),
        re.MULTILINE,
    )
    assert {"0.2": "0.0", "10.0": "1.0"}.items() <= dict(buckets).items()


async def test_an_abandoned_request_is_counted(metrics: Metrics, aiohttp_client: AiohttpClient) -> None:
    """A request whose client went away counts under 499, and is not in flight any more."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    client = await aiohttp_client(
        application(metrics, wait)
    )  # its server cancels when the client disconnects
    request = asyncio.create_task(client.get("/decks/1"))
    await begun.wait()
    assert b"\nhttp_requests_in_flight 1.0\n" in metrics.render_text("")[0]
    request.cancel()
    with pytest.raises((asyncio.CancelledError, ClientConnectionError)):
        await request
    await wait_until(lambda: cancelled.is_set() and bool(responses(metrics)), "the request is counted")
    assert {("GET", "/decks/{id}", "499"): 1.0} == responses(metrics)
    assert b"\nhttp_requests_in_flight 0.0\n" in metrics.render_text("")[0]


async def test_everything_is_counted_as_the_exporter_counts(
    metrics: Metrics, aiohttp_client: AiohttpClient
) -> None:
    """Answers are counted without the exporter's middleware, in the same counters, but for two labels."""
    theirs = CollectorRegistry()
    endings: list[type[Exception] | None] = [web.HTTPGone, KeyError, None, None, None]

    async def handle(request: web.Request) -> web.Response:
        ending = endings[int(request.match_info["id"])]
        if ending is not None:
            raise ending
        return web.Response(status=203)

    def counted(text: str) -> dict[str, str]:
        lines = re.sub(r'(remote|scheme)="[^"]*",?', "", text).replace(",}", "}").splitlines()
        pattern = re.compile(r"^http_(?:requests|responses|exceptions)_total(\{.*\}) (\S+)$")
        found = [match for match in map(pattern.match, lines) if match is not None]
        return {match.string.rpartition(" ")[0]: match[2] for match in found}

    for middleware in (metrics_middleware(metrics), prometheus_middleware_factory("http", theirs)):
        app = web.Application(middlewares=[middleware])
        app.router.add_get("/decks/{id}", handle)
        client = await aiohttp_client(app)
        for number in range(len(endings)):
            await client.get(f"/decks/{number}")
            await client.get("/elsewhere")
    ours = counted(metrics.render_text("")[0].decode())
    assert counted(generate_latest(theirs).decode()) == ours
    assert 9 == len(ours), ours


@pytest.mark.parametrize("flags", [0, 1])
async def test_a_sampled_request_is_the_exemplar_of_its_bucket(
    metrics: Metrics, aiohttp_client: AiohttpClient, flags: int
) -> None:
    """In OpenMetrics a bucket names the trace of a request that fell into it, in the text format none does."""

    async def traced(request: web.Request) -> web.Response:
        trace = TraceContext(f"{int(request.match_info['id']):032x}", "0" * 15 + "1", flags)
        current_request.set(RequestContext("req", trace.trace_id, trace))
        return web.Response()

    app = web.Application(middlewares=[metrics_middleware(metrics, with_exemplars=True)])
    app.router.add_get("/decks/{id}", traced)
    client = await aiohttp_client(app)
    for number in (7, 8):
        await client.get(f"/decks/{number}")
    exposition = metrics.render_text("application/openmetrics-text")[0].decode()
    families = parse_openmetrics(exposition)  # type: ignore[no-untyped-call]
    found = [
        (sample.labels, sample.exemplar)
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    ]
    if not flags:
        assert [] == found
        return
    assert found
    labels, exemplar = found[-1]
    assert ("GET", "/decks/{id}", "200") == (labels["method"], labels["path_template"], labels["status_code"])
    assert exemplar.value <= float(labels["le"])
    assert abs(time.time() - float(exemplar.timestamp)) < 60
    assert f"{8:032x}" in [exemplar.labels["trace_id"] for _, exemplar in found]
    assert b"trace_id" not in metrics.render_text("")[0]

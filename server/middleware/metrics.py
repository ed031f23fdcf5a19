"""Request metrics: aiohttp-prometheus-exporter behind a thin wrapper that keeps its labels bounded.

It declares, and counts in, `http_requests_total`, `http_responses_total` and `http_exceptions_total`, labelled by
method, route template and status. Used as it is, it would also label by scheme, by the caller's address and by any
invented method, erase the cause of exceptions, count every error of the domain as a 500, and not count abandoned
requests at all. Two of its metrics are ours instead, under the names that one expects: as its gauge has no multiprocess
mode, the requests of a killed worker would stay in progress forever; and its histogram reads the event loop's
clock, which stands still while a handler computes, so that under uvloop a second of computing takes no time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import cache
from time import perf_counter
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp_prometheus_exporter.middleware import prometheus_middleware_factory
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from server.errors import MasteryError
from server.telemetry.metrics.index import Metrics

CLIENT_CLOSED_REQUEST = 499  # as nginx calls it: the client went away, or the server is stopping
_NOT_MATCHED = "__not_matched__"  # as the exporter calls it
# A proxy ends TLS, and the caller's address is without bound: the exporter's labels that say nothing here.
_DROPPED_LABELS = frozenset({"scheme", "remote"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def metrics_middleware(metrics: Metrics, *, with_exemplars: bool = False) -> Middleware:
    """The middleware that measures every request; made once per `Metrics`.

    A request that matches no route is counted under the template `__not_matched__`, an invented method as
    `OTHER`, a domain error under its own status, a cancelled request under 499. Exceptions pass through
    untouched. With exemplars, durations are noted together with the traces of their requests.

    An answer is counted in the exporter's counters directly, as the exporter would; only what ends in an exception
    takes the way through its own middleware.
    """
    counters = _CountersOnly(metrics.registry)
    count_failure = prometheus_middleware_factory("http", counters)
    requests, responses = (
        metrics.labelled(counters.declared[name]) for name in ("http_requests", "http_responses")
    )
    durations = metrics.labelled(metrics.http_request_duration_seconds)
    in_flight = metrics.tally(metrics.http_requests_in_flight)
    known: dict[tuple[str, web.AbstractRoute, int], tuple[Any, Any, Any]] = {}

    def find(request: web.Request, status: int) -> tuple[Any, Any, Any]:
        """What to count an answer in; the same few are asked for with every request."""
        place = (request.method, request.match_info.route, status)
        found = known.get(place)
        if found is None:
            view = _View(request)
            found = (
                requests(view.method, view.path_template),
                responses(view.method, view.path_template, status),
                durations(view.method, view.path_template, status),
            )
            if request.method in _METHODS and view.path_template != _NOT_MATCHED:
                known[place] = found
        return found

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        in_flight.inc()
        began = perf_counter()
        try:
            response = await handler(request)
        except (Exception, asyncio.CancelledError) as error:
            view, status, seconds = _View(request), _status(error), perf_counter() - began
            durations(view.method, view.path_template, status).observe(seconds)
            if with_exemplars:
                metrics.request_exemplars.note((view.method, view.path_template, status), seconds)
            with contextlib.suppress(_StandIn):
                await count_failure(view, _raise(_stand_in_class(type(error).__name__, status)))
            raise
        finally:
            in_flight.dec()
        request_count, response_count, duration = find(request, response.status)
        request_count.inc()
        response_count.inc()
        seconds = perf_counter() - began
        duration.observe(seconds)
        if with_exemplars:
            view = _View(request)
            metrics.request_exemplars.note((view.method, view.path_template, response.status), seconds)
        return response

    return middleware


def _raise(stand_in: type[_StandIn]) -> Callable[[Any], Awaitable[Any]]:
    async def call(_view: _View) -> web.StreamResponse:
        raise stand_in

    return call


class _View:
    """As much of a request as the exporter looks at, with bounded values."""

    __slots__ = ("match_info", "method", "path_template", "remote", "scheme")

    def __init__(self, request: web.Request) -> None:
        self.method = request.method if request.method in _METHODS else "OTHER"
        self.scheme = request.scheme
        self.remote = "-"
        self.match_info = request.match_info
        resource = request.match_info.route.resource
        self.path_template = _NOT_MATCHED if resource is None else resource.canonical


class _CountersOnly(CollectorRegistry):
    """A registry that declares counters in another one, without the labels that are the same everywhere.

    Nothing but counters is declared.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry
        self.declared: dict[str, Counter] = {}

    def register(self, collector: Collector) -> None:
        """Declare a metric of the exporter's."""
        if isinstance(collector, Counter):
            (family,) = collector.describe()
            names = [name for name in collector._labelnames if name not in _DROPPED_LABELS]  # noqa: SLF001 - only there
            counter = Counter(
                family.name,
                family.documentation.replace(", scheme, remote", ""),
                names,
                registry=self._registry,
            )
            self.declared[family.name] = counter
            collector.labels = _without_dropped(counter)  # type: ignore[method-assign]
        elif isinstance(collector, MetricWrapperBase):
            collector.labels = _nothing  # type: ignore[method-assign, assignment]


def _without_dropped(counter: Counter) -> Callable[..., Counter]:
    def labels(**labels: object) -> Counter:
        return counter.labels(
            **{name: value for name, value in labels.items() if name not in _DROPPED_LABELS}
        )

    return labels


class _Nothing:
    """What a metric of the exporter's that is not ours does."""

    def inc(self) -> None:
        """Count nothing."""

    def dec(self) -> None:
        """Count nothing."""

    def observe(self, seconds: float) -> None:
        """Measure nothing."""


_NOTHING = _Nothing()


def _nothing(**_labels: object) -> Any:
    return _NOTHING


class _StandIn(web.HTTPException):
    """What the exporter, which alters exceptions, sees in the place of one: its name and its status."""

    def __init__(self) -> None:
        Exception.__init__(self)


@cache
def _stand_in_class(name: str, status: int) -> type[_StandIn]:
    return type(name, (_StandIn,), {"status": status, "status_code": status})


def _status(error: BaseException) -> int:
    if isinstance(error, web.HTTPException | MasteryError):
        return error.status
    return CLIENT_CLOSED_REQUEST if isinstance(error, asyncio.CancelledError) else 500

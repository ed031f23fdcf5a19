"""Request metrics: the counters of aiohttp-prometheus-exporter, with labels whose number is bounded.

The library declares `http_requests_total`, `http_responses_total` and `http_exceptions_total`, labelled by method,
route template and status. They are counted here as its own middleware would count them, with these differences: it
would label by scheme, by the caller's address and by any invented method, erase the cause of exceptions, count every
error of the domain as a 500, and not count abandoned requests at all.

Two of its metrics are replaced by ours. Its gauge has no multiprocess mode: the requests of a killed worker would stay
in progress forever. Its histogram reads the event loop's clock, which stands still while a handler computes.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp_prometheus_exporter.middleware import prometheus_middleware_factory
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.registry import Collector

from server.errors import MasteryError
from server.telemetry.metrics.index import Metrics

CLIENT_CLOSED_REQUEST = 499  # as nginx calls it: the client hung up, or the server is stopping
_NOT_MATCHED = "__not_matched__"  # as the library calls it
# A proxy ends TLS, and the caller's address is without bound.
_DROPPED_LABELS = frozenset({"scheme", "remote"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def metrics_middleware(metrics: Metrics, *, with_exemplars: bool = False) -> Middleware:
    """The middleware that measures every request; made once per `Metrics`.

    A request that matches no route is counted under the template `__not_matched__`, an invented method as
    `OTHER`, a domain error under its own status, a cancelled request under 499. Exceptions pass through
    untouched. With exemplars, durations are noted together with the traces of their requests.
    """
    declared = _Counters(metrics.registry)
    prometheus_middleware_factory("http", declared)
    requests, responses, exceptions = (
        metrics.labelled(declared.counters[name])
        for name in ("http_requests", "http_responses", "http_exceptions")
    )
    durations = metrics.labelled(metrics.http_request_duration_seconds)
    in_flight = metrics.tally(metrics.http_requests_in_flight)
    known: dict[tuple[str, web.AbstractRoute, int], tuple[Any, Any, Any]] = {}

    def find(request: web.Request, status: int) -> tuple[Any, Any, Any]:
        """What to count an answer in; the same few are asked for with every request."""
        method, template = _labels_of(request)
        found = (
            requests(method, template),
            responses(method, template, status),
            durations(method, template, status),
        )
        if request.method in _METHODS and template != _NOT_MATCHED:
            known[request.method, request.match_info.route, status] = found
        return found

    def count(request: web.Request, status: int, began: float) -> None:
        place = (request.method, request.match_info.route, status)
        request_count, response_count, duration = known.get(place) or find(request, status)
        request_count.inc()
        response_count.inc()
        seconds = perf_counter() - began
        duration.observe(seconds)
        if with_exemplars:
            metrics.request_exemplars.note((*_labels_of(request), status), seconds)

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        in_flight.inc()
        began = perf_counter()
        try:
            response = await handler(request)
        except (Exception, asyncio.CancelledError) as error:
            count(request, _status(error), began)
            exceptions(*_labels_of(request), type(error).__name__).inc()
            raise
        finally:
            in_flight.dec()
        count(request, response.status, began)
        return response

    return measure


def _labels_of(request: web.Request) -> tuple[str, str]:
    """The method and the route template of a request, as labels."""
    resource = request.match_info.route.resource
    method = request.method if request.method in _METHODS else "OTHER"
    return method, _NOT_MATCHED if resource is None else resource.canonical


class _Counters(CollectorRegistry):
    """A registry for the library: declares its counters in another one, without `_DROPPED_LABELS`, and nothing else."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry
        self.counters: dict[str, Counter] = {}

    def register(self, collector: Collector) -> None:
        """Declare a metric of the library's."""
        if isinstance(collector, Counter):
            (family,) = collector.describe()
            labels = [name for name in collector._labelnames if name not in _DROPPED_LABELS]  # noqa: SLF001 - only there
            documentation = family.documentation.replace(", scheme, remote", "")
            self.counters[family.name] = Counter(family.name, documentation, labels, registry=self._registry)


def _status(error: BaseException) -> int:
    if isinstance(error, web.HTTPException | MasteryError):
        return error.status
    return CLIENT_CLOSED_REQUEST if isinstance(error, asyncio.CancelledError) else 500

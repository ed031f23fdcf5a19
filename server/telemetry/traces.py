"""Traces over OTLP/HTTP: each request as a span of the OpenTelemetry SDK, and its operations as spans below it.

This module needs the extra `otel`, and is imported only where traces are exported. What the service itself measures is
in `timings`; it becomes spans when the request has ended. The SDK's own thread sends them, in batches: a collector that
is slow or down costs no request anything, and its spans are dropped when their queue is full. The SDK's complaints are
logged as one event a minute, because a collector that is down fails with every batch.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from time import monotonic, perf_counter, time_ns
from typing import Any, Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.span import TraceState

from server.telemetry.context import HTTP_METHODS, RequestContext, RequestLine, TraceContext, current_request
from server.telemetry.timings import Operation, Part, Timings

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 60.0
_LONGEST_METHOD: Final = 32
_CLOSE_SECONDS: Final = 2.0
# The semantic conventions for database client calls, HTTP servers and resources, version 1.37 and later.
_KINDS: Final[Mapping[Part, SpanKind]] = {
    "db": SpanKind.CLIENT,
    "cache": SpanKind.CLIENT,
    "limit": SpanKind.INTERNAL,  # many decisions are made without a call
}
_SYSTEMS: Final[Mapping[Part, str]] = {"db": "postgresql", "cache": "redis"}


class ExportLog(logging.Handler):
    """Takes the records of a library's loggers, and logs one of them a minute with the number of those left out.

    Args:
        name: of the library's topmost logger.

    Attributes:
        unsaid: the number of records since the last line.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger(name)
        self._logger.addHandler(self)
        self._logger.propagate = False
        self._quiet_until = 0.0
        self.unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record, or count it. Called with the handler's lock held, from any thread."""
        now = monotonic()
        if now < self._quiet_until:
            self.unsaid += 1
            return
        self._quiet_until = now + EVERY_SECONDS
        unsaid, self.unsaid = self.unsaid, 0
        log.warning("tracing.export_failed", detail=record.getMessage(), unsaid_before=unsaid)

    def close(self) -> None:
        """Let the library's records reach the root logger again."""
        self._logger.removeHandler(self)
        self._logger.propagate = True
        super().close()


class SpanExport:
    """The spans of this process. Made after the fork, and closed with the application.

    The SDK itself reads the environment variables of the specification (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
    OTEL_TRACES_SAMPLER, OTEL_BSP_…, OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION, …).

    Args:
        url: where the collector takes traces, such as http://localhost:4318/v1/traces.
        service: what the service is called, unless the environment names it.
        env: where it runs, such as `production`.
        version: what is running there.
    """

    def __init__(self, url: str, *, service: str, env: str, version: str) -> None:
        attributes: dict[str, Any] = {
            "service.name": service,
            "service.version": version,
            "deployment.environment.name": env,
            "process.pid": os.getpid(),
        }
        named = OTELResourceDetector().detect().attributes
        self._provider = TracerProvider(
            resource=Resource.create({**attributes, **named}),
            id_generator=_RequestIds(),
            shutdown_on_exit=False,
        )
        self._exporter = OTLPSpanExporter(endpoint=url)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("server", version)
        self._log = ExportLog("opentelemetry")

    def begin(
        self, request: RequestContext, timings: Timings, *, method: str, scheme: str, route: str | None
    ) -> Span | None:
        """Begin the span of a request, and record its operations if it is sampled.

        From now on, calls to other services name this span as their parent.

        Args:
            request: in `current_request` already, with the trace that the caller has named, if any.
            timings: of the request.
            method: its method.
            scheme: http or https.
            route: its route template; None where there is none.

        Returns:
            The span, to be given to `end`; None where the sampler or the caller does not want it.
        """
        name, attributes = _described(method, scheme, route)
        span = self._tracer.start_span(
            name,
            _remote(request.trace),
            SpanKind.SERVER,
            attributes,
            start_time=_clock_difference_ns() + _nanoseconds(timings.started),
        )
        own = span.get_span_context()
        if own.is_valid:
            state = "" if request.trace is None else request.trace.state
            request.trace = TraceContext(
                f"{own.trace_id:032x}", f"{own.span_id:016x}", own.trace_flags, state
            )
            request.trace_id = request.trace.trace_id
        if not span.is_recording():
            return None
        timings.operations = []
        return span

    def end(self, span: Span, line: RequestLine) -> None:
        """End the span of a request that has been answered."""
        context, timings = line.context, line.timings
        operations, timings.operations = timings.operations or [], None
        parent, difference_ns = set_span_in_context(span), _clock_difference_ns()
        for operation in operations:
            self._note(operation, parent, difference_ns)
        span.set_attributes(
            {
                "http.response.status_code": line.status,
                "http.response.body.size": line.response_bytes,
                "client.address": line.client_ip,
                "network.protocol.version": line.http_version,
                "mastery.request_id": context.request_id,
                "mastery.rate_limit": line.rate_limit,
            }
        )
        if context.user_id is not None:
            span.set_attribute("user.id", context.user_id)
        if line.user_agent is not None:
            span.set_attribute("user_agent.original", line.user_agent.text)
        if timings.cache_outcome is not None:
            span.set_attribute("mastery.cache", timings.cache_outcome)
        if line.error_code is not None:
            span.set_attribute("mastery.error_code", line.error_code)
        if line.status >= 500:  # what a client did wrong is no error of a server's span
            span.set_attribute("error.type", line.error_code or str(line.status))
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    async def close(self) -> None:
        """Send what waits, for as long as a shutdown can wait for it."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        await asyncio.to_thread(last.join, _CLOSE_SECONDS)
        if last.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # no further attempts
            log.warning("tracing.spans_lost")
        self._log.close()

    def _note(self, operation: Operation, parent: Context, difference_ns: int) -> None:
        attributes: dict[str, str] = {}
        system = _SYSTEMS.get(operation.part)
        if system is not None:
            attributes = {"db.system.name": system, "db.query.summary": operation.name}
        if operation.error_type is not None:
            attributes["error.type"] = operation.error_type
        span = self._tracer.start_span(
            operation.name,
            parent,
            _KINDS[operation.part],
            attributes,
            start_time=difference_ns + _nanoseconds(operation.began),
        )
        if operation.error_type is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(difference_ns + _nanoseconds(operation.ended))


class _RequestIds(RandomIdGenerator):
    """A trace that begins with a request has the id that the request's log lines have."""

    def generate_trace_id(self) -> int:
        request = current_request.get()
        return super().generate_trace_id() if request is None else int(request.trace_id, 16)


def _described(method: str, scheme: str, route: str | None) -> tuple[str, dict[str, str]]:
    """The name and the first attributes of a request's span; neither is anything that a client can invent."""
    attributes = {"http.request.method": method, "url.scheme": scheme}
    name = method
    if method not in HTTP_METHODS:
        original = method[:_LONGEST_METHOD]
        attributes |= {"http.request.method": "_OTHER", "http.request.method_original": original}
        name = "HTTP"
    if route is not None:
        attributes["http.route"] = route
        name = f"{name} {route}"
    return name, attributes


def _remote(trace: TraceContext | None) -> Context:
    """The context in which the caller's span is the parent."""
    if trace is None:
        return Context()
    caller = SpanContext(
        int(trace.trace_id, 16),
        int(trace.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(trace.flags),
        trace_state=TraceState.from_header([trace.state]) if trace.state else None,
    )
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _clock_difference_ns() -> int:
    """From a time of `perf_counter` to the same since 1970."""
    return time_ns() - _nanoseconds(perf_counter())


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)

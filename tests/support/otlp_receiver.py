"""A collector of traces for tests: OTLP over HTTP, decoded with the protocol's own definitions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDictProxy
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as MetricMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.waiting import wait_until


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived; ids as the hexadecimal digits that the headers have."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    is_error: bool
    state: str


@dataclass
class OtlpReceiver:
    """What has arrived; it answers as long as `answers` is set."""

    url: str = ""
    spans: list[ReceivedSpan] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, MetricMessage]] = field(default_factory=list)
    headers: list[CIMultiDictProxy[str]] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, request: web.Request) -> web.Response:
        """POST /v1/traces."""
        message = ExportTraceServiceRequest()
        message.ParseFromString(await request.read())
        self.headers.append(request.headers)
        await self.answers.wait()
        for of_resource in message.resource_spans:
            self.resources.append(_values(of_resource.resource.attributes))
            for of_scope in of_resource.scope_spans:
                self.spans += [_received(span) for span in of_scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    async def receive_metrics(self, request: web.Request) -> web.Response:
        """POST /v1/metrics."""
        message = ExportMetricsServiceRequest()
        message.ParseFromString(await request.read())
        await self.answers.wait()
        for of_resource in message.resource_metrics:
            self.resources.append(_values(of_resource.resource.attributes))
            for of_scope in of_resource.scope_metrics:
                self.metrics.append({metric.name: metric for metric in of_scope.metrics})
        answer = ExportMetricsServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    def requests(self) -> list[ReceivedSpan]:
        """The spans of requests that have arrived."""
        return [span for span in self.spans if span.kind == "SERVER"]

    def children_of(self, parent: ReceivedSpan) -> list[ReceivedSpan]:
        """The spans directly below one, by the time they began."""
        children = [span for span in self.spans if span.parent_id == parent.span_id]
        return sorted(children, key=lambda span: span.began_ns)

    async def wait_for(self, count: int) -> list[ReceivedSpan]:
        """The spans of requests, once there are so many."""
        await wait_until(lambda: len(self.requests()) >= count, f"the spans of {count} requests")
        return self.requests()


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[OtlpReceiver]:
    """A running receiver."""
    receiver = OtlpReceiver()
    receiver.answers.set()
    app = web.Application()
    app.router.add_post("/v1/traces", receiver.receive)
    app.router.add_post("/v1/metrics", receiver.receive_metrics)
    server = TestServer(app)
    await server.start_server()
    receiver.url = str(server.make_url("")).rstrip("/")
    yield receiver
    await server.close()


def _received(span: SpanMessage) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        state=span.trace_state,
    )


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes
    }

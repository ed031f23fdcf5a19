"""The names that log pipelines have for the fields of a line: Elastic, Google Cloud, OpenTelemetry, Datadog.

Each function takes a line with our own names, and returns it with the pipeline's. What a pipeline has no name for
stays apart from what it has, so that an index never gets a text where it wants an object.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from server.telemetry.context import HTTP_METHODS

Shape = Literal["json", "ecs", "gcp", "otel", "datadog"]
LogFormat = Literal["json", "console", "ecs", "gcp", "otel", "datadog"]
Line = dict[str, Any]

ECS_VERSION: Final = "8.11.0"
# https://www.elastic.co/guide/en/ecs/8.11/ecs-field-reference.html
_ECS: Final[Mapping[str, str]] = {
    "timestamp": "@timestamp",
    "level": "log.level",
    "message": "message",
    "logger": "log.logger",
    "service": "service.name",
    "env": "service.environment",
    "version": "service.version",
    "instance": "service.node.name",
    "pid": "process.pid",
    "trace_id": "trace.id",
    "request_id": "http.request.id",
    "http.method": "http.request.method",
    "http.status": "http.response.status_code",
    "http.version": "http.version",
    "user_agent": "user_agent.original",
    "response_bytes": "http.response.body.bytes",
    "user_id": "user.id",
    "client_ip": "client.ip",
    "error_code": "error.code",
    "error.type": "error.type",
    "error.message": "error.message",
    "error.stack": "error.stack_trace",
}
# https://cloud.google.com/logging/docs/structured-logging
_GCP: Final[Mapping[str, str]] = {"timestamp": "time", "level": "severity", "error.stack": "stack_trace"}
_GCP_REQUEST: Final[Mapping[str, str]] = {
    "http.method": "requestMethod",
    "http.status": "status",
    "http.version": "protocol",
    "user_agent": "userAgent",
    "response_bytes": "responseSize",
    "client_ip": "remoteIp",
}
_GCP_OWN: Final = frozenset({"time", "severity", "stack_trace", "httpRequest", "serviceContext"})
# https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/ for the fields at the top, and the
# semantic conventions 1.37 and later for attributes; requests have the same ones as their spans.
_OTEL: Final[Mapping[str, str]] = {
    "timestamp": "timestamp",
    "level": "severity_text",
    "message": "body",
    "logger": "otel.scope.name",
    "service": "service.name",
    "env": "deployment.environment.name",
    "version": "service.version",
    "instance": "service.instance.id",
    "pid": "process.pid",
    "trace_id": "trace_id",
    "http.method": "http.request.method",
    "http.route": "http.route",
    "http.status": "http.response.status_code",
    "http.version": "network.protocol.version",
    "user_agent": "user_agent.original",
    "response_bytes": "http.response.body.size",
    "user_id": "user.id",
    "client_ip": "client.address",
    "error.type": "exception.type",
    "error.message": "exception.message",
    "error.stack": "exception.stacktrace",
}
# https://opentelemetry.io/docs/specs/otel/logs/data-model/#severity-fields
_OTEL_SEVERITY: Final[Mapping[str, tuple[str, int]]] = {
    "debug": ("DEBUG", 5),
    "info": ("INFO", 9),
    "warning": ("WARN", 13),
    "error": ("ERROR", 17),
    "critical": ("FATAL", 21),
}
# https://docs.datadoghq.com/standard-attributes/?product=log
_DATADOG: Final[Mapping[str, str]] = {
    "level": "status",
    "logger": "logger.name",
    "trace_id": "dd.trace_id",
    "request_id": "http.request_id",
    "http.status": "http.status_code",
    "user_agent": "http.useragent",
    "response_bytes": "network.bytes_written",
    "client_ip": "network.client.ip",
    "user_id": "usr.id",
    "error.type": "error.kind",
}
# What Datadog takes out of a line as the line's own, by default.
_DATADOG_OWN: Final = frozenset({
    "date", "device", "duration", "host", "hostname", "severity", "source", "status", "ddsource", "ddtags",
})  # fmt: skip
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def reshaping(shape: Shape) -> Callable[[Line], Line] | None:
    """A function that gives a line the pipeline's names; None for our own."""
    match shape:
        case "ecs":
            return _ecs
        case "gcp":
            project = os.environ.get("GOOGLE_CLOUD_PROJECT", "").strip()
            return lambda line: _gcp(line, project)
        case "otel":
            return _otel
        case "datadog":
            return _datadog
        case _:
            return None


def _ecs(line: Line) -> Line:
    """Fields that ECS has no name for go below `mastery`: a `server` or `file` of ours would not fit its mapping."""
    shaped: Line = {_ECS.get(name, f"mastery.{name}"): value for name, value in line.items()}
    shaped["ecs.version"] = ECS_VERSION
    _in_nanoseconds(line, shaped, "mastery.duration_ms", "event.duration")
    return shaped


def _gcp(line: Line, project: str) -> Line:
    """A request's line gets the HttpRequest that the log viewer shows, and a link to its trace."""
    shaped: Line = {}
    for name, value in line.items():
        if name in _GCP_OWN or name.startswith("logging.googleapis.com/"):
            shaped[f"{name}_"] = value
        else:
            shaped[_GCP.get(name, name)] = value
    shaped["severity"] = line["level"].upper()
    shaped["serviceContext"] = {"service": shaped.pop("service"), "version": shaped.pop("version")}
    duration_ms = line.get("duration_ms")
    if "http.method" in line and isinstance(duration_ms, int | float):
        request = {theirs: shaped.pop(ours) for ours, theirs in _GCP_REQUEST.items() if ours in line}
        request["responseSize"] = str(request.get("responseSize", 0))  # 64 bits, in JSON a text
        request["latency"] = f"{duration_ms / 1000:.6f}s"
        if "protocol" in request:
            request["protocol"] = f"HTTP/{request['protocol']}"
        shaped["httpRequest"] = request
    trace_id = line.get("trace_id")
    if isinstance(trace_id, str) and _TRACE_ID.fullmatch(trace_id):
        del shaped["trace_id"]
        shaped["logging.googleapis.com/trace"] = (
            f"projects/{project}/traces/{trace_id}" if project else trace_id
        )
    return shaped


def _otel(line: Line) -> Line:
    """The fields of a log record at the top, attributes by the semantic conventions, all else below `mastery`."""
    shaped: Line = {_OTEL.get(name, f"mastery.{name}"): value for name, value in line.items()}
    shaped["severity_text"], shaped["severity_number"] = _OTEL_SEVERITY[line["level"]]
    method = line.get("http.method")
    if method is not None and method not in HTTP_METHODS:
        shaped["http.request.method"] = "_OTHER"
        shaped["http.request.method_original"] = method
    return shaped


def _datadog(line: Line) -> Line:
    """Datadog's reserved and standard attributes; a value of ours with such a name gets an underscore."""
    shaped: Line = {}
    for name, value in line.items():
        own = f"{name}_" if name in _DATADOG_OWN or name.startswith("dd.") else name
        shaped[_DATADOG.get(name, own)] = value
    shaped["ddsource"] = "python"
    shaped["ddtags"] = f"env:{shaped.pop('env')},version:{shaped.pop('version')}"
    _in_nanoseconds(line, shaped, "duration_ms", "duration")
    return shaped


def _in_nanoseconds(line: Line, shaped: Line, ours: str, theirs: str) -> None:
    duration_ms = line.get("duration_ms")
    if isinstance(duration_ms, int | float):
        del shaped[ours]
        shaped[theirs] = round(duration_ms * 1_000_000)

"""The names that a log pipeline has for what our lines say: Elastic Common Schema, Google Cloud Logging."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

Shape = Literal["json", "ecs", "gcp"]
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
    "trace_id": "trace.id",
    "request_id": "http.request.id",
    "http.method": "http.request.method",
    "http.status": "http.response.status_code",
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
    "response_bytes": "responseSize",
    "client_ip": "remoteIp",
}
_GCP_OWN: Final = frozenset({"time", "severity", "stack_trace", "httpRequest", "serviceContext"})
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def reshaping(shape: Shape) -> Callable[[Line], Line] | None:
    """What turns a line with our names into one with the pipeline's; None where they are ours."""
    if shape == "ecs":
        return _ecs
    if shape == "gcp":
        project = os.environ.get("GOOGLE_CLOUD_PROJECT", "").strip()
        return lambda line: _gcp(line, project)
    return None


def _ecs(line: Line) -> Line:
    """What ECS has no name for goes below `mastery`: a `server` or `file` of ours would not fit into its mapping."""
    shaped: Line = {_ECS.get(name, f"mastery.{name}"): value for name, value in line.items()}
    shaped["ecs.version"] = ECS_VERSION
    duration_ms = line.get("duration_ms")
    if isinstance(duration_ms, int | float):
        del shaped["mastery.duration_ms"]
        shaped["event.duration"] = round(duration_ms * 1_000_000)  # nanoseconds
    return shaped


def _gcp(line: Line, project: str) -> Line:
    """A request's line gets the HttpRequest that the log viewer shows; the trace is linked where it is one."""
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
        shaped["httpRequest"] = request
    trace_id = line.get("trace_id")
    if isinstance(trace_id, str) and _TRACE_ID.fullmatch(trace_id):
        del shaped["trace_id"]
        shaped["logging.googleapis.com/trace"] = (
            f"projects/{project}/traces/{trace_id}" if project else trace_id
        )
    return shaped

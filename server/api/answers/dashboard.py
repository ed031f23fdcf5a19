"""What somebody on call is told."""

from __future__ import annotations

from marshmallow import fields, validate

from server.api.answers.kinds import Answer, count, milliseconds
from server.api.answers.operations import ServicesHealth
from server.telemetry.metrics.value_files import FAULTS


class KeyMetric(Answer):
    """One of the six, with its thresholds and what to do about it."""

    name = fields.String()
    title = fields.String()
    value = fields.Float(allow_none=True, metadata={"description": "null where nothing was measured"})
    unit = fields.String(validate=validate.OneOf(("ms", "%")))
    state = fields.String(
        validate=validate.OneOf(("good", "warning", "critical", "unknown")),
        metadata={"description": "unknown: measured too little to judge"},
    )
    warning = fields.Float(metadata={"description": "the value from which it is a warning"})
    critical = fields.Float(metadata={"description": "the value from which it is critical"})
    basis = fields.String(metadata={"description": "how much was measured"})
    action = fields.String()
    runbook = fields.String(metadata={"description": "a section of docs/performance-monitoring.md"})


class SlowRoute(Answer):
    """What one route did lately."""

    method = fields.String()
    route = fields.String()
    requests = count()
    mean = milliseconds()
    p95 = milliseconds()


class RefusedClient(Answer):
    """A client that the rate limiter refused, masked."""

    client = fields.String()
    refusals = count()


class Worker(Answer):
    """How one worker process of the machine that answers decides rate limits."""

    worker = fields.String(metadata={"description": "its process id; empty where it is the only one"})
    alone = fields.Boolean(metadata={"description": "it decides without Redis: its breaker is open"})
    decisions = fields.Dict(
        keys=fields.String(), values=count(), metadata={"description": "since it started, by who decided"}
    )


class Dashboard(Answer):
    """How the service is: the key metrics, each part's health, and the last hours as columns of one length."""

    timestamp = fields.DateTime()
    version = fields.String()
    status = fields.String(validate=validate.OneOf(("healthy", "degraded", "unhealthy")))
    machines = count()
    window_seconds = count(unit="seconds")
    key_metrics = fields.List(fields.Nested(KeyMetric))
    services = fields.Nested(ServicesHealth)
    uptime = fields.Float(metadata={"description": "seconds, of the worker that answers"})
    history = fields.Dict(keys=fields.String(), values=fields.List(fields.Float(allow_none=True)))
    slowest_routes = fields.List(fields.Nested(SlowRoute))
    refused_clients = fields.List(fields.Nested(RefusedClient))
    workers = fields.List(fields.Nested(Worker))
    metrics_fault = fields.String(
        allow_none=True,
        validate=validate.OneOf((*FAULTS, None)),
        metadata={
            "description": "why the other workers can't read the metrics of the one that answers; null if they can"
        },
    )

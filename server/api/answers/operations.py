"""What those who run the service are told."""

from __future__ import annotations

from marshmallow import fields, validate

from server.api.answers.kinds import SHARES, Answer, count, maybe_text, milliseconds


class Alive(Answer):
    """The process turns."""

    status = fields.String(validate=validate.Equal("ok"))
    timestamp = fields.DateTime()


class Ready(Answer):
    """Requests are welcome."""

    status = fields.String(validate=validate.Equal("ready"))
    timestamp = fields.DateTime()


class Unready(Answer):
    """Requests are not welcome here now."""

    status = fields.String(validate=validate.Equal("unready"))
    reason = fields.String(validate=validate.OneOf(("starting", "draining", "database", "schema")))


class ServiceHealth(Answer):
    """One part that the service needs."""

    status = fields.String(validate=validate.OneOf(("healthy", "degraded", "unhealthy")))
    response_time = milliseconds()
    error = fields.String(
        allow_none=True, metadata={"description": "a short word, such as timeout or read_only"}
    )


class ServicesHealth(Answer):
    """The parts that the service needs."""

    database = fields.Nested(ServiceHealth)
    cache = fields.Nested(ServiceHealth)


class HealthReport(Answer):
    """Degraded without the cache or where the database takes no writes, unhealthy without the database."""

    status = fields.String(validate=validate.OneOf(("healthy", "degraded", "unhealthy")))
    timestamp = fields.DateTime()
    services = fields.Nested(ServicesHealth)
    uptime = fields.Float(metadata={"description": "seconds"})
    total_response_time = milliseconds()


class MetricSample(Answer):
    """One value of a metric."""

    labels = fields.Dict(keys=fields.String(), values=fields.String())
    value = fields.Float(allow_none=True)


class Metric(Answer):
    """A metric with its samples."""

    name = fields.String()
    type = fields.String()
    help = fields.String()
    samples = fields.List(fields.Nested(MetricSample))


class MetricList(Answer):
    """All metrics, over all workers."""

    metrics = fields.List(fields.Nested(Metric))
    timestamp = fields.DateTime()


class CacheNumbers(Answer):
    """The cache's numbers since the last reset, over all workers."""

    hits = count()
    misses = count()
    sets = count()
    deletes = count()
    errors = count()
    hit_rate = fields.Float(validate=SHARES)
    hit_rate_formatted = fields.String()
    total_operations = count()
    connection_status = fields.String(validate=validate.OneOf(("connected", "disconnected")))
    last_error = maybe_text()
    last_error_time = fields.DateTime(allow_none=True)


class CacheHealth(Answer):
    """Whether Redis answers now."""

    healthy = fields.Boolean()
    latency = milliseconds()
    latency_formatted = fields.String()


class CacheMetrics(Answer):
    """How the cache does."""

    metrics = fields.Nested(CacheNumbers)
    health = fields.Nested(CacheHealth)
    timestamp = fields.DateTime()


class CacheMetricsReset(Answer):
    """The numbers start from zero."""

    message = fields.String()
    timestamp = fields.DateTime()

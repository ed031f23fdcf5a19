"""Metrics over OTLP, as a collector receives them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from server.development import EmbeddedServer
from server.telemetry.logs.lines import instance_name
from server.telemetry.metrics.exposition import RENAMED
from server.telemetry.metrics.index import Metrics
from server.telemetry.otlp_metrics import MetricsExport, as_otlp
from tests.support.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.support.service import running_service
from tests.support.waiting import wait_until
from tests.telemetry.conftest import Lines


@pytest.fixture
async def collector() -> AsyncIterator[OtlpReceiver]:
    """A receiver of metrics."""
    async with otlp_receiver() as receiver:
        yield receiver


def export_to(url: str, metrics: Metrics) -> MetricsExport:
    """An export that sends at once, and then not for an hour."""
    return MetricsExport(metrics, f"{url}/v1/metrics", env="test", version="1", interval_seconds=3600)


async def test_counters_gauges_and_histograms_arrive(collector: OtlpReceiver) -> None:
    """With their values, labels and descriptions; a bucket has its own observations only; old names stay at home."""
    metrics = Metrics()
    metrics.rate_limit_decisions.labels("standard", "denied", "redis").inc(3)
    metrics.cache_connection_status.set(1)
    for seconds in (0.0001, 0.004, 0.004, 99.0):
        metrics.database_query_duration_seconds.labels("ping", "primary").observe(seconds)
    export = export_to(collector.url, metrics)
    await export.once()
    await export.close()
    first, last = collector.metrics
    assert first.keys() <= last.keys()
    decisions = first["mastery_rate_limit_decisions"].sum
    assert decisions.is_monotonic
    assert AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE == decisions.aggregation_temporality
    (point,) = decisions.data_points
    assert (3.0, {"policy", "outcome", "source"}) == (
        point.as_double, {attribute.key for attribute in point.attributes},
    )  # fmt: skip
    assert 1.0 == first["cache_connection_status"].gauge.data_points[0].as_double
    (durations,) = first["mastery_database_query_duration_seconds"].histogram.data_points
    assert (4, pytest.approx(99.0081)) == (durations.count, durations.sum)
    assert len(durations.bucket_counts) == len(durations.explicit_bounds) + 1
    assert {0.0005: 1, 0.005: 2, math.inf: 1} == {
        bound: number
        for bound, number in zip([*durations.explicit_bounds, math.inf], durations.bucket_counts, strict=True)
        if number
    }
    assert not RENAMED & first.keys()
    assert "Cache reads that found a value." == first["cache_hits"].description
    resource = collector.resources[0]
    assert ("mastery", "test", instance_name()) == (
        resource["service.name"], resource["deployment.environment.name"], resource["service.instance.id"],
    )  # fmt: skip


async def test_a_collector_that_is_down_is_reported_when_it_begins(logged: Lines) -> None:
    """It costs one event, nothing else: the service goes on, and closes in time."""
    export = MetricsExport(
        Metrics(), "http://127.0.0.1:1/v1/metrics", env="test", version="1", interval_seconds=0.01
    )
    await export.start()
    lines: list[dict[str, object]] = []

    def is_reported() -> bool:
        lines.extend(logged())
        return any(line["message"] == "metrics.export_failed" for line in lines)

    await wait_until(is_reported, "the event")
    await export.close()


def test_a_metric_without_values_is_left_out() -> None:
    """Before anything has happened there is nothing to send of it."""
    sent = [as_otlp(family, 1, 2) for family in Metrics().families()]
    assert None in sent
    assert all(metric is None or metric.data.data_points for metric in sent)


@pytest.mark.timeout(120)
async def test_one_worker_sends_for_all(
    collector: OtlpReceiver,
    shared_postgres: EmbeddedServer,
    shared_redis: EmbeddedServer,
    database_template: str,
) -> None:
    """Of two workers one sends, what both have counted; at the end it sends the last numbers."""
    with running_service(
        shared_postgres,
        shared_redis,
        database_template,
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{collector.url}/v1/metrics",
        OTEL_METRIC_EXPORT_INTERVAL="600000",
    ):
        await wait_until(lambda: bool(collector.metrics), "the first metrics")
    await wait_until(lambda: len(collector.metrics) == 2, "the last metrics")
    pids = {
        attribute.value.string_value
        for point in collector.metrics[0]["process_memory_rss_bytes"].gauge.data_points
        for attribute in point.attributes
    }
    assert 1 <= len(pids) <= 2

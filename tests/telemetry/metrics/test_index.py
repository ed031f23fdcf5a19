"""The index of metrics and its two forms, in a single process."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from server.middleware.metrics import metrics_middleware
from server.telemetry.context import RequestContext, TraceContext, current_request
from server.telemetry.metrics.exposition import RENAMED, Exemplars
from server.telemetry.metrics.index import Metrics
from server.telemetry.metrics.series import Series

NAMES = {
    "cache_hits_total", "cache_misses_total", "cache_sets_total", "cache_deletes_total", "cache_errors_total",
    "cache_operations_total", "cache_hit_rate", "cache_connection_status", "process_uptime_seconds",
    "process_memory_rss_bytes", "process_memory_heap_used_bytes", "process_memory_heap_total_bytes",
    "process_memory_external_bytes", "http_requests_total", "http_request_duration_seconds",
    "http_responses_total", "http_requests_in_flight", "rate_limit_decisions_total",
    "rate_limit_near_limit_total",
    "rate_limit_cost_units_total",
    "rate_limit_failures_total",
    "rate_limit_worker_decisions",
    "rate_limit_worker_alone",
    "database_query_duration_seconds", "database_pool_size", "database_pool_in_use", "database_pool_waiters",
    "redis_round_trip_seconds", "event_loop_lag_seconds", "errors_total", "service_up",
    "process_memory_limit_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds", "python_info",
    "mastery_build_info",
}  # fmt: skip

# Each of their values is a name in the code, or one of a few: nothing that a caller could invent.
BOUNDED_LABELS = {
    "method", "path_template", "status_code", "target", "exception_type", "policy", "outcome", "source",
    "query", "code", "service", "le", "version", "implementation", "major", "minor", "patchlevel",
}  # fmt: skip


@pytest.fixture
def metrics() -> Metrics:
    """An index with a value in each metric."""
    metrics = Metrics()
    metrics_middleware(metrics)
    metrics.cache_hits.inc(3)
    metrics.cache_misses.inc()
    metrics.cache_errors.inc()
    metrics.cache_connection_status.set(1)
    metrics.rate_limit_decisions.labels("standard", "denied", "redis").inc()
    metrics.database_query_duration_seconds.labels("list_classes", "primary").observe(0.004)
    metrics.redis_round_trip_seconds.observe(0.0004)
    metrics.errors.labels("not_found").inc()
    return metrics


def text_of(metrics: Metrics) -> str:
    """The exposition in the text format."""
    return metrics.render_text("")[0].decode()


def test_every_promised_metric_is_there(metrics: Metrics) -> None:
    """The names of the contract are declared from the start, before anything has happened."""
    declared = set(re.findall(r"^# TYPE (\S+)", text_of(metrics), re.MULTILINE))
    fresh = Metrics()
    metrics_middleware(fresh)
    assert NAMES - declared == set()
    assert declared == set(re.findall(r"^# TYPE (\S+)", text_of(fresh), re.MULTILINE))


def test_what_was_renamed_has_both_names(metrics: Metrics) -> None:
    """The old name says which is the new one, and has the same values, in both forms; nothing else has two."""
    families = {family.name: family for family in parse_text(text_of(metrics))}
    entries = {entry["name"]: entry["samples"] for entry in metrics.render_json()["metrics"]}
    for name in RENAMED:
        old, new = families[name], families[f"mastery_{name}"]
        assert old.documentation.startswith(f"Deprecated, use mastery_{name}")
        assert old.documentation.endswith(f". {new.documentation}")
        assert [(f"mastery_{one.name}", one.labels, one.value) for one in old.samples] == [
            (one.name, one.labels, one.value) for one in new.samples
        ]
        for sample in old.samples:
            assert entries[sample.name] == entries[f"mastery_{sample.name}"]
    assert {name for name in families if f"mastery_{name}" in families} == RENAMED
    assert not RENAMED & {family.name for family in metrics.families()}
    declared = {entry["name"] for entry in metrics.render_json(declared_names=True)["metrics"]}
    assert not [name for name in declared if name.startswith("mastery_") and name != "mastery_build_info"]


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    """What promtool's linter asks: help, _total on counters only, base units, no type in a name."""
    for family in parse_text(text_of(metrics)):
        assert family.documentation
        assert family.name.islower()
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert all(name.endswith("_total") for name in names)
        else:
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
            assert {1.0} == {sample.value for sample in family.samples} or not family.name.endswith("_info")
        assert not re.search(r"_(ms|milliseconds|kb|minutes|counter|gauge|histogram)(_|$)", family.name)


def test_labels_are_bounded(metrics: Metrics) -> None:
    """No path, user or key is a label."""
    labels = {
        label
        for family in parse_text(text_of(metrics))
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= BOUNDED_LABELS


def test_an_undeclared_metric_can_not_be_used(metrics: Metrics) -> None:
    """A metric that the index does not declare, or a label that it does not have, is an error at once."""
    with pytest.raises(AttributeError):
        metrics.cache_hitz.inc()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="label"):
        metrics.rate_limit_decisions.labels("standard", "denied")


def test_computed_metrics(metrics: Metrics) -> None:
    """The hit rate is in percent of reads; the operations are the sum of what they ended as."""
    text = text_of(metrics)
    assert "\ncache_hit_rate 75.0\n" in text
    assert "\ncache_operations_total 5.0\n" in text
    uptime = re.search(r"^process_uptime_seconds (\S+)$", text, re.MULTILINE)
    assert uptime is not None
    assert 0.0 <= float(uptime[1]) < 60.0


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", True),
        ("text/plain, application/openmetrics-text;q=0.5", False),
        ("text/plain;version=0.0.4,application/openmetrics-text", True),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;q=0.49,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=many", False),
        ("application/openmetrics-text;version=x\x00y;escaping=\u2028", True),
        (";;,,;q=", False),
    ],
)
def test_the_format_is_negotiated(metrics: Metrics, accept: str, openmetrics: bool) -> None:
    """OpenMetrics 1.0 for whom it is the first choice, text 0.0.4 for everybody else; never what a caller wrote."""
    body, content_type = metrics.render_text(accept)
    expected = (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
        if openmetrics
        else "text/plain; version=0.0.4; charset=utf-8"
    )
    assert expected == content_type
    assert openmetrics == body.endswith(b"# EOF\n")


def test_openmetrics_is_valid(metrics: Metrics) -> None:
    """The strict parser of the format accepts it and reads the same values."""
    body, _ = metrics.render_text("application/openmetrics-text")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert 3.0 == values["cache_hits_total"]
    assert not any(name.endswith("_created") for name in values)


def test_json_says_the_same(metrics: Metrics) -> None:
    """The JSON form has every sample of the text form under the sample's name, and nothing else."""
    document = metrics.render_json()
    assert {"metrics", "timestamp"} == set(document)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["timestamp"])
    entries = {entry["name"]: entry for entry in document["metrics"]}
    assert len(entries) == len(document["metrics"])
    assert all({"name", "type", "help", "samples"} == set(entry) for entry in entries.values())
    in_text = {sample.name for family in parse_text(text_of(metrics)) for sample in family.samples}
    assert in_text <= set(entries)
    assert {
        "name": "cache_hits_total",
        "type": "counter",
        "help": "Cache reads that found a value.",
        "samples": [{"labels": {}, "value": 3.0}],
    } == entries["cache_hits_total"]
    assert {"labels": {"query": "list_classes", "target": "primary"}, "value": 1.0} in entries[
        "database_query_duration_seconds_count"
    ]["samples"]
    assert [] == entries["http_requests_total"]["samples"]


def test_a_bound_belongs_to_its_bucket() -> None:
    """A value that equals an upper bound is counted under it, as prometheus_client's own observe does."""
    metrics = Metrics()
    histogram = metrics.redis_round_trip_seconds
    bounds = [bound for bound in histogram._upper_bounds if bound != float("inf")]
    tally = metrics.tally(histogram)
    for bound in bounds:
        tally.observe(bound)
    tally.observe(bounds[-1] * 2)
    metrics.flush()
    counted = [
        metrics.registry.get_sample_value(f"{histogram._name}_bucket", {"le": str(bound)}) for bound in bounds
    ]
    assert [float(number) for number in range(1, len(bounds) + 1)] == counted
    assert len(bounds) + 1 == metrics.registry.get_sample_value(f"{histogram._name}_count")


@pytest.mark.parametrize(("value", "le"), [(0.1, "0.1"), (0.10001, "0.5"), (0.5, "0.5"), (9.0, "+Inf")])
@pytest.mark.parametrize("flags", [0, 1])
def test_an_exemplar_is_of_its_bucket(value: float, le: str, flags: int) -> None:
    """The bucket whose upper bound it does not exceed, if its trace is sampled."""
    exemplars = Exemplars("seconds", ["route"], [0.1, 0.5])
    token = current_request.set(RequestContext("r", "t", TraceContext("7" * 32, "1" * 16, flags)))
    try:
        exemplars.note(["/"], value)
    finally:
        current_request.reset(token)
    shown = {
        bound: exemplars.of(Series.of("seconds_bucket", {"route": "/", "le": bound}))
        for bound in ("0.1", "0.5", "+Inf")
    }
    assert {le if flags else None} == {bound for bound, text in shown.items() if text} or {None}
    assert [] == [bound for bound, text in shown.items() if text and (bound != le or "7" * 32 not in text)]
    assert bool(flags) == any(shown.values())
    assert "" == exemplars.of(Series.of("seconds_sum", {"route": "/"}))

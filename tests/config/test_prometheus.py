"""The service's metrics as Prometheus sees them: over two workers, under load, and when a worker dies."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from server.settings import ROOT
from tests.config.conftest import METRICS_TOKEN
from tests.config.load import mixed_load
from tests.config.prometheus_server import Prometheus
from tests.support.programs import needs
from tests.support.service import Service
from tests.support.waiting import eventually

PAGE = ROOT / "docs" / "performance-monitoring.md"
Series = tuple[str, frozenset[tuple[str, str]]]

needs_promtool = needs("promtool", "prometheus")


def metrics(service: Service, accept: str = "") -> str:
    """What /api/metrics says."""
    status, text = service.request("GET", "/api/metrics", token=METRICS_TOKEN, accept=accept)
    assert status == 200
    return text


def worker_pids(service: Service) -> set[int]:
    """The workers that have reported."""
    return {
        int(pid)
        for pid in re.findall(r'^process_memory_rss_bytes\{pid="(\d+)"\}', metrics(service), re.MULTILINE)
    }


def cumulative(service: Service) -> dict[Series, float]:
    """Every value that must never fall: of counters and of histograms."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(metrics(service))
        if family.type in {"counter", "histogram"}
        for sample in family.samples
    }


def key_queries() -> dict[str, str]:
    """The queries of the key metrics, as the documentation gives them, by metric."""
    table = PAGE.read_text().partition("As Prometheus queries:")[2].partition("## ")[0]
    return dict(re.findall(r"^\| ([^|`]+) \| `([^`]+)` \|", table, re.MULTILINE))


def slugs(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@needs_promtool
def test_the_text_format_is_clean(service: Service) -> None:
    """Prometheus' own linter has nothing to say about what two workers expose."""
    mixed_load(service)
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=metrics(service),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_openmetrics_says_the_same(service: Service) -> None:
    """The strict parser reads OpenMetrics, and every series of the text format is in it."""
    mixed_load(service)
    text = metrics(service)
    families = list(parse_openmetrics(metrics(service, "application/openmetrics-text")))  # type: ignore[no-untyped-call]
    expected = {
        (sample.name, *sample.labels.items()) for family in parse_text(text) for sample in family.samples
    }
    strict = {(sample.name, *sample.labels.items()) for family in families for sample in family.samples}
    assert expected
    assert expected - strict == set()


def test_scrapes_need_the_token(service: Service) -> None:
    """Where a METRICS_TOKEN is set, nobody reads metrics without it."""
    assert 401 == service.request("GET", "/api/metrics")[0]
    assert 401 == service.request("GET", "/api/metrics", token=service.user_token)[0]


def test_the_six_queries_of_the_documentation(service: Service, prometheus: Prometheus) -> None:
    """Prometheus scrapes two workers under a mixed load, and each key metric has one plausible value."""
    mixed_load(service)  # the first makes the series, the second lets them grow
    prometheus.wait_for_scrape()
    seen = mixed_load(service)
    prometheus.wait_for_scrape()
    queries = key_queries()
    value = {metric: prometheus.value(query) for metric, query in queries.items()}
    assert 6 == len(value), queries
    assert seen[429] >= 1
    assert 0.0 < value["p95 response time"] < 10.0
    assert 0.0 < value["p95 query time"] < 5.0
    assert 0.0 < value["cache hit rate"] < 1.0
    assert 0.0 == value["error rate"]
    assert 0.0 < value["rejections"] < 0.5
    assert 0.0 < value["memory"] < 1.0


def test_prometheus_counts_what_was_answered(service: Service, prometheus: Prometheus) -> None:
    """Between two scrapes the counters grow by the answers that the clients got, by status, over both workers."""
    mixed_load(service)
    prometheus.wait_for_scrape()
    statuses = 'sum by (status_code) (http_responses_total{path_template!="/api/metrics"})'

    def counts() -> dict[int, int]:
        return {int(labels["status_code"]): int(value) for labels, value in prometheus.query(statuses)}

    before = counts()
    seen = mixed_load(service)
    prometheus.wait_for_scrape()
    assert dict(seen) == {status: n - before[status] for status, n in counts().items() if n > before[status]}


def test_the_rules_are_evaluated(service: Service, prometheus: Prometheus) -> None:
    """Each rule is healthy, each recorded metric has a value, and nothing fires about a healthy service."""
    mixed_load(service)
    prometheus.wait_for_scrape()
    rules = [rule for group in prometheus.data("rules")["groups"] for rule in group["rules"]]
    assert [] == [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    assert recorded
    for name in recorded:
        values = [value for _, value in prometheus.query(name)]
        assert values, name
        assert all(math.isfinite(value) for value in values), name
    assert [] == prometheus.query('ALERTS{alertstate="firing"}')


def test_each_alert_says_what_to_do(prometheus: Prometheus) -> None:
    """Each has a severity, a summary, an action, and the section of the documentation that helps."""
    rules: list[dict[str, Any]] = prometheus.data("rules", type="alert")["groups"]
    alerts = [rule for group in rules for rule in group["rules"]]
    assert alerts
    anchors = slugs(PAGE.read_text())
    for alert in alerts:
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "action", "runbook_url"} == set(alert["annotations"])
        address, _, section = alert["annotations"]["runbook_url"].partition("{{ end }}")
        assert "{{ with $externalLabels.runbooks }}{{ . }}/" == address
        page, _, anchor = section.partition("#")
        assert PAGE == ROOT / page
        assert anchor in anchors


def test_counters_survive_a_killed_worker(service: Service, prometheus: Prometheus) -> None:
    """A worker is killed and replaced; no counter falls, and Prometheus sees no reset."""
    mixed_load(service)
    prometheus.wait_for_scrape()
    before, workers = cumulative(service), worker_pids(service)
    assert 2 == len(workers)
    os.kill(min(workers), signal.SIGKILL)
    eventually(lambda: has_replaced(service, min(workers)), "another worker has taken over")
    after = cumulative(service)
    assert {} == {series: value for series, value in before.items() if after.get(series, -1.0) < value}
    mixed_load(service)
    prometheus.wait_for_scrape()
    metadata: dict[str, list[dict[str, str]]] = prometheus.data("metadata")
    names = [name for name, (about, *_) in metadata.items() if about["type"] == "counter"]
    assert "cache_hits" in names
    for name in names:
        resets = prometheus.query(f'sum(resets({name}_total{{job="mastery"}}[10m]))')
        assert all(value == 0.0 for _, value in resets), name
    assert 0.0 == prometheus.value('sum(resets(http_request_duration_seconds_count{job="mastery"}[10m]))')


def has_replaced(service: Service, pid: int) -> bool:
    """Whether there are two workers and none of them is that one."""
    try:
        workers = worker_pids(service)
    except OSError:  # this connection was the dead worker's
        return False
    return len(workers) == 2 and pid not in workers


def test_json_and_text_are_about_the_same_workers(service: Service) -> None:
    """POST /api/metrics answers for both workers as GET does."""
    status, text = service.request("POST", "/api/metrics", token=METRICS_TOKEN)
    assert status == 200
    names = {entry["name"] for entry in json.loads(text)["metrics"]}
    assert {"cache_hits_total", "service_up", "http_requests_in_flight"} <= names

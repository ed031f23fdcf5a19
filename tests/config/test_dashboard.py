"""The Grafana dashboard: every expression is one that Prometheus answers, about metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from server.settings import ROOT
from tests.config.conftest import METRICS_TOKEN
from tests.config.load import mixed_load
from tests.config.prometheus_server import Prometheus
from tests.config.promql import metric_names
from tests.support.service import Service

FILE = ROOT / "config" / "grafana" / "dashboard.json"
VARIABLES = {"$job": "mastery", "$instance": ".*", "$__rate_interval": "1m"}
PROMETHEUS_OWN = {"up", "ALERTS"}
# Nobody's answer was a 5xx, and no alert fires: that is what their panels show.
EMPTY_WHEN_WELL = re.compile(r'^sum by .*status_code=~"5\.\."|^ALERTS')


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    """The file."""
    parsed: dict[str, Any] = json.loads(FILE.read_text())
    return parsed


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    """Every expression, with values for Grafana's variables."""
    queries = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for query in [*queries, *dashboard["annotations"]["list"]]:
        expression = query["expr"]
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression
        yield expression


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le) (rate(a_bucket{x="b_total{}"}[5m])) or vector(0)', {"a_bucket"}),
        ("a / on (instance) group_left (b) (c > 0) and d:e:f5m unless g", {"a", "c", "d:e:f5m", "g"}),
        ("histogram_quantile(0.9, topk(3, a)) + 1e3", {"a"}),
    ],
)
def test_names_are_found(expression: str, names: set[str]) -> None:
    """The tests' own reading of PromQL tells metrics from everything else."""
    assert names == metric_names(expression)


def test_the_real_prometheus_answers_every_expression(
    dashboard: dict[str, Any], service: Service, prometheus: Prometheus
) -> None:
    """After a mixed load each expression has a value, but for those that show what is wrong."""
    mixed_load(service)
    prometheus.wait_for_scrape()
    mixed_load(service)
    prometheus.wait_for_scrape()
    asked = list(expressions(dashboard))
    assert asked
    empty = [asked_for for asked_for in asked if not prometheus.query(asked_for)]
    assert [] == [expression for expression in empty if not EMPTY_WHEN_WELL.search(expression)]


def test_every_metric_exists(dashboard: dict[str, Any], service: Service, prometheus: Prometheus) -> None:
    """What dashboard and rules name is exposed by /api/metrics, recorded by a rule, or Prometheus' own."""
    mixed_load(service)
    _, text = service.request("GET", "/api/metrics", token=METRICS_TOKEN)
    exposed = set(re.findall(r"^([a-z_]+)[{ ]", text, re.MULTILINE))
    rules = [rule for group in prometheus.data("rules")["groups"] for rule in group["rules"]]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    shown = {name for expression in expressions(dashboard) for name in metric_names(expression)}
    assert set() == shown - exposed - PROMETHEUS_OWN  # it needs no recording rules
    ruled = {name for rule in rules for name in metric_names(rule["query"])}
    assert set() == ruled - exposed - recorded - PROMETHEUS_OWN


def test_the_key_metrics_are_on_top(dashboard: dict[str, Any]) -> None:
    """The first row has the six, each with the thresholds at which the alerts begin."""
    tiles = [panel for panel in dashboard["panels"] if panel["type"] == "stat"]
    assert {1} == {panel["gridPos"]["y"] for panel in tiles}
    thresholds = {
        panel["title"]: [
            step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]
        ]
        for panel in tiles
    }
    assert {
        "p95 response time": [0.2, 0.5],
        "Cache hit rate": [0.6, 0.8],
        "p95 query time": [0.05, 0.2],
        "Error rate": [0.001, 0.01],
        "Rejections": [0.01, 0.05],
        "Memory": [0.7, 0.9],
    } == thresholds


def test_it_can_be_imported_as_it_is(dashboard: dict[str, Any]) -> None:
    """It asks for no inputs: the data source is a variable everywhere, ids are unique, nothing overlaps."""
    assert "__inputs" not in dashboard
    assert "datasource" == dashboard["templating"]["list"][0]["type"]
    panels = dashboard["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) == 23
    for panel in panels:
        for query in panel.get("targets", []):
            assert (
                {"type": "prometheus", "uid": "${datasource}"} == query["datasource"] == panel["datasource"]
            )

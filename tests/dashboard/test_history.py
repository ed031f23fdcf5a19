"""What the dashboard remembers: points, minutes, restarts, and the six metrics made of them."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest

from server.dashboard.fleet import KEY_METRICS, key_metrics
from server.dashboard.history import (
    COARSE_STEP_SECONDS,
    COUNTERS,
    FINE_SECONDS,
    KEPT_SECONDS,
    QUERY_BOUNDS_MS,
    REQUEST_BOUNDS_MS,
    History,
    Totals,
    quantile_ms,
    read_totals,
)

NOW = 1_800_000_000
REQUESTS = len(REQUEST_BOUNDS_MS) + 1
QUERIES = len(QUERY_BOUNDS_MS) + 1


def totals(factor: int = 0, *, place: int = 4, memory: float = 12.5, **counters: int) -> Totals:
    """So many times one request; `place` is the bucket that it falls into."""
    counts = {"requests": factor, "hits": 3 * factor, "misses": factor} | counters
    row = tuple(factor * (index == place) for index in range(REQUESTS))
    return Totals(
        counters=tuple(counts.get(name, 0) for name in COUNTERS),
        requests=row,
        queries=tuple(factor * (index == 2) for index in range(QUERIES)),
        gauges=(1, 10, 0, memory),
        routes={"GET /api/classes": (factor * 1000, *row)},
    )


def test_a_point_is_what_was_added_between_two_samples() -> None:
    """The first sample is where counting begins; a time that is not later changes nothing."""
    history = History()
    history.add(totals(5), NOW)
    assert [] == history.points
    history.add(totals(25), NOW + 5)
    history.add(totals(99), NOW + 5)
    (point,) = history.points
    assert (NOW + 5, 5, 20, 60) == (point.time, point.seconds, point["requests"], point["hits"])
    assert {"GET /api/classes": 20} == {name: sum(row[1:]) for name, row in history.routes().items()}


def test_a_restart_loses_and_invents_nothing() -> None:
    """Counters that fell have begun anew: what they have now is what was added."""
    history = History()
    for second, count in enumerate((100, 150, 7, 9)):
        history.add(totals(count), NOW + 5 * second)
    assert [50, 7, 2] == [point["requests"] for point in history.points]
    assert 9 == sum(sum(row[1:]) for row in history.routes().values())


def test_old_points_become_minutes_and_older_ones_go() -> None:
    """Hours fit into some kilobytes, and no request is lost on the way but with its time."""
    history = History()
    for step in range((KEPT_SECONDS + 1200) // 5):
        history.add(totals(step * 7, lag_us=step * 900 + step % 3), NOW + 5 * step)
    fine = [point for point in history.points if point.time > history.time - FINE_SECONDS]
    assert FINE_SECONDS / 5 == len(fine)
    assert KEPT_SECONDS / COARSE_STEP_SECONDS + len(fine) >= len(history.points)
    assert {7 / 5} == {point["requests"] / point.seconds for point in history.points}
    assert history.points[0].time > history.time - KEPT_SECONDS
    packed = history.pack()
    assert len(packed) < 16 * 1024
    assert history == History.unpack(packed)


@pytest.mark.parametrize(
    "kept", [b"", b"garbage", zlib.compress(b"[]"), zlib.compress(b"[[0],[],0,null,[]]")]
)
def test_what_another_version_has_kept_is_begun_anew(kept: bytes) -> None:
    """A format that is not ours is none, and no error."""
    assert History.unpack(kept) is None


def test_quantiles_are_interpolated_as_prometheus_does() -> None:
    """Inside a bucket in proportion; beyond the last bound that bound; of nothing, nothing."""
    assert quantile_ms(0.95, (0, 0, 0), (10, 20)) is None
    assert 15 == quantile_ms(0.5, (0, 10, 0), (10, 20))
    assert 9.5 == quantile_ms(0.95, (10, 0, 0), (10, 20))
    assert 20 == quantile_ms(0.99, (1, 0, 9), (10, 20))


def states(before: Totals, after: Totals) -> dict[str, str]:
    """The state of each key metric after five seconds."""
    history = History()
    history.add(before, NOW)
    history.add(after, NOW + 5)
    return {metric["name"]: metric["state"] for metric in key_metrics(history.window())}


def test_each_metric_has_its_three_states() -> None:
    """At the thresholds of the documentation, from as many events as the alerts ask for."""
    for metric in KEY_METRICS:
        sign = 1 if metric.critical > metric.warning else -1
        enough = 1000
        assert "good" == metric.state_of(metric.warning - sign * 0.01, enough)
        assert "warning" == metric.state_of(metric.warning, enough)
        assert "warning" == metric.state_of(metric.critical - sign * 0.01, enough)
        assert "critical" == metric.state_of(metric.critical, enough)
        assert "unknown" == metric.state_of(None, 0)
    assert ["unknown"] * 6 == [metric["state"] for metric in key_metrics(None)]


def test_the_states_follow_from_what_was_counted() -> None:
    """Slow answers, errors, rejections, misses and memory each turn their own metric, and one request none."""
    empty = totals()
    good = states(empty, totals(1000))
    assert good == {name: "warning" if name == "cacheHitRate" else "good" for name in good}
    assert "critical" == states(empty, totals(1000, place=7))["responseTime"]
    assert "critical" == states(empty, totals(1000, errors=10))["errorRate"]
    assert "unknown" == states(empty, totals(100, errors=1))["errorRate"]  # one per cent, but of one error
    assert "unknown" == states(empty, totals(100, errors=4))["errorRate"]
    assert "warning" == states(empty, totals(100, errors=5))["errorRate"]
    assert "warning" == states(empty, totals(100, errors=9))["errorRate"]
    assert "unknown" == states(empty, totals(100, rejected=19))["rejections"]
    assert "warning" == states(empty, totals(100, rejected=20))["rejections"]
    assert "critical" == states(empty, totals(1000, rejected=50))["rejections"]
    assert "critical" == states(empty, totals(1000, hits=600, misses=400))["cacheHitRate"]
    assert "warning" == states(empty, totals(1000, memory=70))["memory"]
    assert "unknown" == states(empty, totals(1, place=7))["responseTime"]
    assert "unknown" == states(empty, replace(totals(1), gauges=(0, 0, 0, -1)))["memory"]


def test_probes_and_rejections_do_not_hide_how_slow_the_others_are() -> None:
    """Probes, scrapes and this page are no requests; a rejection is one, but has no duration."""
    entries: dict[str, list[object]] = {name: [] for name in ("bucket", "count", "sum")}

    def add(name: str, value: float, **labels: str) -> None:
        entries[name].append({"labels": {"method": "GET", **labels}, "value": value})

    for template, status in (
        ("/api/health", "200"), ("/livez", "200"), ("/api/metrics/cache", "200"), ("/api/dashboard", "200"),
        ("/dashboard/{file}", "200"), ("/api/classes", "429"), ("/api/classes", "200"), ("/api/stats", "503"),
    ):  # fmt: skip
        for bound in REQUEST_BOUNDS_MS:
            add("bucket", bound >= 100, path_template=template, status_code=status, le=str(bound / 1000))
        add("bucket", 1, path_template=template, status_code=status, le="+Inf")
        add("count", 1, path_template=template, status_code=status)
        add("sum", 0.07, path_template=template, status_code=status)
    metrics = [
        {"name": f"http_request_duration_seconds_{name}", "samples": samples}
        for name, samples in entries.items()
    ]
    read = read_totals({"metrics": metrics})
    counted = dict(zip(COUNTERS, read.counters, strict=True))
    assert (3, 1, 1) == (counted["requests"], counted["errors"], counted["rejected"])
    assert (2, 2) == (sum(read.requests), read.requests[REQUEST_BOUNDS_MS.index(100)])
    assert {"GET /api/classes": 70_000, "GET /api/stats": 70_000} == {
        name: row[0] for name, row in read.routes.items()
    }

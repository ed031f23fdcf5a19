"""Health, readiness and metrics, as probes and scrapers see them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi

TOKEN = "a token for scrapers"
CACHE_COUNTERS = ("hits", "misses", "sets", "deletes", "errors")


async def test_a_healthy_service_reports_its_parts(api: Api) -> None:
    """The shape of the contract; times in milliseconds with at most two decimals."""
    response = await api.get("/api/health", by=None)
    body = await response.json()
    assert (200, "healthy") == (response.status, body["status"])
    assert body.keys() == {"status", "timestamp", "services", "uptime", "totalResponseTime"}
    assert body["services"].keys() == {"database", "cache"}
    for part in body["services"].values():
        assert part.keys() == {"status", "responseTime", "error"}
        assert ("healthy", None) == (part["status"], part["error"])
        assert round(part["responseTime"], 2) == part["responseTime"]
    assert re.fullmatch(r"20.*T.*\.[0-9]{3}Z", body["timestamp"])


async def cache_metrics(api: Api) -> dict[str, Any]:
    """GET /api/metrics/cache, for an admin."""
    response = await api.get("/api/metrics/cache", by="admin")
    assert 200 == response.status
    body: dict[str, Any] = await response.json()
    return body


async def test_probes_do_not_touch_the_cache_counters(api: Api, course: Course) -> None:
    """Health, readiness, metrics and the limiter talk to Redis, and the hit rate does not notice."""
    await api.get("/api/classes")
    await api.get("/api/classes")
    before = (await cache_metrics(api))["metrics"]
    for path in ("/api/health", "/readyz", "/livez", "/api/metrics", "/nowhere") * 3:
        await api.get(path)
    assert before == (await cache_metrics(api))["metrics"]
    assert (1, 1, 1, 0, 0, 3, 50.0, "50.00%", "connected") == tuple(
        before[name]
        for name in (*CACHE_COUNTERS, "totalOperations", "hitRate", "hitRateFormatted", "connectionStatus")
    )
    assert course.classes


async def test_cache_metrics_have_their_shape_and_can_be_reset(api: Api) -> None:
    """The reset zeroes what people read; the counters that Prometheus reads only grow."""
    await api.get("/api/classes")
    body = await cache_metrics(api)
    assert body.keys() == {"metrics", "health", "timestamp"}
    assert body["metrics"].keys() == {
        *CACHE_COUNTERS, "hitRate", "hitRateFormatted", "totalOperations", "connectionStatus", "lastError",
        "lastErrorTime",
    }  # fmt: skip
    assert {"healthy", "latency", "latencyFormatted"} == body["health"].keys()
    assert f"{body['health']['latency']:.2f}ms" == body["health"]["latencyFormatted"]
    assert 403 == (await api.post("/api/metrics/cache/reset")).status
    reset = await api.post("/api/metrics/cache/reset", by="admin")
    assert (200, {"message", "timestamp"}) == (reset.status, (await reset.json()).keys())
    after = (await cache_metrics(api))["metrics"]
    assert [0] * 5 == [after[name] for name in CACHE_COUNTERS]
    text = await (await api.get("/api/metrics", by=None)).text()
    assert "\ncache_misses_total 1.0\n" in text


async def test_metrics_may_need_a_token(settings: Settings, start_api: StartApi) -> None:
    """With METRICS_TOKEN set, metrics are for its bearer; those of the cache for admins as well."""
    api = await start_api(replace(settings, metrics_token=TOKEN))
    scraper = {"Authorization": f"Bearer {TOKEN}"}
    expected = {
        ("GET", "/api/metrics"): {None: 401, "user": 401, "admin": 401, "scraper": 200},
        ("POST", "/api/metrics"): {None: 401, "user": 401, "admin": 401, "scraper": 200},
        ("GET", "/api/metrics/cache"): {None: 401, "user": 403, "admin": 200, "scraper": 200},
        ("POST", "/api/metrics/cache/reset"): {None: 401, "user": 403, "admin": 200, "scraper": 401},
    }
    for (method, path), statuses in expected.items():
        for caller, status in statuses.items():
            by, headers = (None, scraper) if caller == "scraper" else (caller, {})
            response = await api.request(method, path, by=by, headers=headers)
            assert (path, caller, status) == (path, caller, response.status)
    for wrong in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "", "é", f"{TOKEN}, {TOKEN}"):
        response = await api.get("/api/metrics", by=None, headers={"Authorization": f"Bearer {wrong}"})
        assert (401, "Bearer") == (response.status, response.headers["WWW-Authenticate"])


async def test_errors_are_counted_by_their_code(api: Api) -> None:
    """The operator sees how many clients are told what."""
    for path in ("/nowhere", "/api/classes?limit=0", "/api/classes?limit=0"):
        await api.get(path)
    text = await (await api.get("/api/metrics", by=None)).text()
    assert 'errors_total{code="invalid"} 2.0' in text
    assert 'errors_total{code="not_found"} 1.0' in text


async def test_no_label_holds_a_path_or_an_id(api: Api, course: Course) -> None:
    """Routes are labelled by their template, unknown ones all alike, invented methods too."""
    card = course.cards["r1"]
    await api.get(f"/api/progress/cards/{card}")
    await api.get("/nowhere/at/all")
    await api.request("BREW", "/api/classes")
    text = await (await api.get("/api/metrics", by=None)).text()
    assert "/api/progress/cards/{flashcardId}" in text
    for word in (str(card), "nowhere", "BREW", str(api.people["user"].user_id), "127.0.0.1"):
        assert word not in text


async def test_readiness_ends_with_the_shutdown(api: Api) -> None:
    """While the service drains it lives, but asks for no more work."""
    assert [200, 200] == [(await api.get(path, by=None)).status for path in ("/livez", "/readyz")]
    app = api.client.app
    assert app is not None
    await app.shutdown()
    responses = [await api.get(path, by=None) for path in ("/livez", "/readyz")]
    assert [200, 503] == [response.status for response in responses]
    assert "Retry-After" in responses[1].headers

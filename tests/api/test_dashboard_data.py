"""GET /api/dashboard and the page: who may see it, what is in it, and what is never in it."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import redis

from server.cli.status import render_status
from server.dashboard.history import KEPT_SECONDS, History
from server.dashboard.keeper import mask_subject
from server.development import EmbeddedServer
from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi
from tests.support.waiting import wait_until

TOKEN = "a token for scrapers"


async def read(api: Api, path: str = "/api/dashboard") -> dict[str, Any]:
    """The data, for an admin."""
    response = await api.get(path, by="admin")
    assert (200, "no-store") == (response.status, response.headers["Cache-Control"])
    body: dict[str, Any] = await response.json()
    return body


async def add_point(api: Api) -> None:
    """Let the history grow by what was counted up to now, without waiting for its turn."""
    keeper = api.services.history
    before = len(keeper.history.points)

    async def grew() -> bool:
        turns = await api.services.redis.execute("KEYS", "h:turn:*", deadline_ms=5000)
        await api.services.redis.execute("DEL", "-", *turns, deadline_ms=5000)
        await keeper.keep()
        return len(keeper.history.points) > before

    await wait_until(grew, "another point")


async def test_the_data_has_its_shape(api: Api, course: Course) -> None:
    """Six metrics with their thresholds, each service, columns of one length, routes as templates."""
    await add_point(api)
    for _ in range(3):
        await api.get(f"/api/classes/{course.classes['Risk']}")
    await add_point(api)
    body = await read(api)
    assert body.keys() == {
        "timestamp", "version", "status", "machines", "windowSeconds", "keyMetrics", "services", "uptime", "history",
        "slowestRoutes", "refusedClients", "workers", "metricsFault", "machine", "process", "blocks", "overrides",
    }  # fmt: skip
    assert ["responseTime", "cacheHitRate", "queryTime", "errorRate", "rejections", "memory"] == [
        metric["name"] for metric in body["keyMetrics"]
    ]
    for metric in body["keyMetrics"]:
        assert metric.keys() == {
            "name", "title", "value", "unit", "state", "warning", "critical", "basis", "action", "runbook",
        }  # fmt: skip
    assert {"database", "cache"} == body["services"].keys()
    columns = body["history"]
    assert columns.keys() == {
        "time", "throughput", "errors", "p50", "p95", "p99", "hitRate", "allowed", "denied", "poolInUse",
        "poolSize", "poolWaiters", "loopLag",
    }  # fmt: skip
    assert 1 == len({len(column) for column in columns.values()})
    assert columns["throughput"][-1] > 0
    assert [("GET", "/api/classes/{classId}", 3)] == [
        (route["method"], route["route"], route["requests"]) for route in body["slowestRoutes"]
    ]
    assert (
        columns["time"][-1:]
        == (await read(api, f"/api/dashboard?after={columns['time'][-2]}"))["history"]["time"]
    )
    assert str(course.classes["Risk"]) not in str(body)
    assert 400 == (await api.get("/api/dashboard?after=never", by="admin")).status


async def test_admins_and_the_metrics_token_see_it(settings: Settings, start_api: StartApi) -> None:
    """Nobody else does; and it is never rate limited."""
    api = await start_api(replace(settings, metrics_token=TOKEN))
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    statuses = [(await api.get("/api/dashboard", by=by)).status for by in (None, "user", "admin")]
    assert [401, 403, 200] == statuses
    response = await api.get("/api/dashboard", by=None, headers=bearer)
    assert 200 == response.status
    assert "X-RateLimit-Limit" not in response.headers
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    assert 401 == (await api.get("/api/dashboard", by=None, headers=wrong)).status


async def test_refused_clients_are_counted_and_masked(
    settings: Settings, start_api: StartApi, strict_limits: Any
) -> None:
    """Over all workers, the most refused one first, and nobody can be told from it, in Redis neither."""
    api = await start_api(replace(settings, rate_limits_file=strict_limits))
    user_id = str(api.people["user"].user_id)
    statuses = [(await api.get("/api/stats")).status for _ in range(103)]
    assert 3 == statuses.count(429)
    assert [{"client": f"user:{user_id[:8]}…", "refusals": 3}] == (await read(api))["refusedClients"]
    await api.services.refusals.flush()
    await api.get("/api/stats")
    other = await start_api(replace(settings, rate_limits_file=strict_limits))
    await api.services.refusals.flush()
    assert [{"client": f"user:{user_id[:8]}…", "refusals": 4}] == (await read(other))["refusedClients"]
    with closing(redis.Redis.from_url(settings.redis_url)) as client:
        (key,) = client.keys("h:refused:*")
        assert user_id not in str(client.zrange(key, 0, -1))
        assert 0 < client.ttl(key) <= 1800


@pytest.mark.parametrize(
    ("subject", "masked"),
    [
        ("ip:203.0.113.77", "ip:203.0.113.…"),
        ("ip:2001:db8:1:2::/64", "ip:2001:db8:…"),
        ("user:1a2b3c4d-0000-4000-8000-000000000001", "user:1a2b3c4d…"),
        ("email:0123456789abcdef0123456789abcdef", "email:012345…"),
    ],
)
def test_a_mask_leaves_no_person(subject: str, masked: str) -> None:
    """Enough is left to tell one client from many."""
    assert masked == mask_subject(subject)
    assert subject not in mask_subject(subject)


async def test_the_history_is_shared_and_survives(
    settings: Settings, start_api: StartApi, course: Course
) -> None:
    """Another worker, or the next start, has the same points; all of its keys end by themselves."""
    api = await start_api(settings)
    await add_point(api)
    await api.get("/api/classes")
    await add_point(api)
    other = await start_api(settings)
    await wait_until(lambda: bool(other.services.history.history.points), "the other's history")
    assert api.services.history.history.points[0] == other.services.history.history.points[0]
    with closing(redis.Redis.from_url(settings.redis_url)) as client:
        keys = client.keys("h:*")
        assert keys
        assert all(client.ttl(key) > 0 or client.pttl(key) != -1 for key in keys)
        (packed,) = [client.get(key) for key in client.keys("h:{history}:of:*")]
    assert isinstance(packed, bytes)
    assert History.unpack(packed) is not None
    assert len(packed) < 4096
    assert course.classes


async def test_several_machines_are_shown_together(
    settings: Settings, start_api: StartApi, course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever machine answers: what both have counted, and how many there are; also after one has ended."""
    apis = []
    for name in ("web.1", "web.2"):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        apis.append(await start_api(settings))
    for api in apis:
        await add_point(api)
        for _ in range(3):
            await api.get(f"/api/classes/{course.classes['Risk']}")
        await add_point(api)
    for api in apis:
        body = await read(api)
        assert 2 == body["machines"]
        assert [6] == [route["requests"] for route in body["slowestRoutes"]]
        (responses,) = [each["basis"] for each in body["keyMetrics"] if each["name"] == "responseTime"]
        assert "6 responses" == responses
    with closing(redis.Redis.from_url(settings.redis_url)) as client:
        assert {"web.1", "web.2"}.isdisjoint(str(client.keys("h:*")))
        assert 2 == client.zcard("h:{history}:machines")
        assert 0 < client.ttl("h:{history}:machines") <= KEPT_SECONDS


async def test_one_worker_at_a_time_writes(settings: Settings, start_api: StartApi) -> None:
    """Two workers that look at the same moment add one point."""
    api = await start_api(settings)
    other = await start_api(settings)
    await add_point(api)
    await other.services.history.keep()
    times = [point.time for point in other.services.history.history.points]
    assert times == [point.time for point in api.services.history.history.points]


async def test_without_redis_it_goes_on(
    settings: Settings, start_api: StartApi, own_redis: EmbeddedServer
) -> None:
    """What was read last stays, points are added, the cache is unhealthy, and so says the terminal."""
    api = await start_api(replace(settings, redis_url=own_redis.url))
    await add_point(api)
    before = len(api.services.history.history.points)
    own_redis.process.kill()
    own_redis.process.wait()
    await wait_until(lambda: not api.services.redis.connected, "Redis to be away")
    api.services.refusals.note("ip:203.0.113.77")

    async def grows() -> bool:
        await api.services.refusals.flush()
        await api.services.history.keep()
        return len(api.services.history.history.points) > before

    await wait_until(grows, "a point without Redis")
    body = await read(api)
    assert ("degraded", "unhealthy") == (body["status"], body["services"]["cache"]["status"])
    assert [{"client": "ip:203.0.113.…", "refusals": 1}] == body["refusedClients"]
    status = render_status(body)
    assert ("cache",) == status.critical
    assert re.search(r"^p95 response time  ", status.text, re.MULTILINE)


async def test_the_page_and_its_files(api: Api) -> None:
    """HTML under a strict policy, without a script or a style in it; its files for good, under hashed names."""
    response = await api.get("/dashboard", by=None)
    page = await response.text()
    assert (200, "text/html", "utf-8") == (response.status, response.content_type, response.charset)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|style=|<script>|\son[a-z]+=|https?://", page)
    unchanged = await api.get("/dashboard", by=None, headers={"If-None-Match": response.headers["ETag"]})
    assert (304, b"") == (unchanged.status, await unchanged.read())
    files = set(re.findall(r'(?:href|src)="(/dashboard/[^"]+)"', page))
    assert {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}.keys() == {
        path.rpartition(".")[2] for path in files
    }
    for path in files:
        file = await api.get(path, by=None)
        assert (200, "public, max-age=31536000, immutable") == (file.status, file.headers["Cache-Control"])
        kind = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}[path.rpartition(".")[2]]
        assert kind == file.content_type
        assert "nosniff" == file.headers["X-Content-Type-Options"]
    for nothing in ("index.html", "..%2fsettings.py", "LICENSE"):
        assert 404 == (await api.get(f"/dashboard/{nothing}", by=None)).status

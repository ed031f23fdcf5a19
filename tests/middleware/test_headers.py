"""The headers that every response carries, whatever its status."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from server.api.services import RULES, Rule
from server.app import create_app
from server.domain.identity.tokens import Caller
from server.settings import Settings
from server.telemetry.health import Health
from tests.api.conftest import Api, Course, StartApi

SECRET = "postgresql://mastery:hunter2@10.1.2.3/mastery"  # as in a driver's message
INSTANT = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
Ask = Callable[[Api, Course], Awaitable[ClientResponse]]


def assert_common(response: ClientResponse, *, limited: bool = True) -> None:
    """What the contract promises of every response."""
    headers = response.headers
    expected = {
        "X-Request-ID": r"req_[0-9a-f]{32}",
        "X-Trace-ID": re.escape(headers["X-Request-ID"]),
        "Server-Timing": r"total;dur=[0-9]+\.[0-9]{2}.*",
        "X-Response-Time": r"[0-9]+\.[0-9]{2}ms",
        "X-Performance-Rating": r"Good|Needs Improvement|Poor",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": r"no-store|private, no-cache",
    }
    if limited:
        expected |= {
            "X-RateLimit-Limit": r"[0-9]+",
            "X-RateLimit-Remaining": r"[0-9]+",
            "X-RateLimit-Reset": INSTANT.pattern,
            "RateLimit-Policy": r'"[a-z-]+";q=[0-9]+;w=[0-9]+.*',
            "RateLimit": r'"[a-z-]+";r=[0-9]+;t=[0-9]+.*',
        }
    wrong = {
        name: headers.getall(name, ())
        for name, pattern in expected.items()
        if len(headers.getall(name, ())) != 1 or not re.fullmatch(pattern, headers[name])
    }
    assert {} == wrong
    if response.status >= 400:
        assert "application/problem+json" == response.content_type
        assert "no-store" == headers["Cache-Control"]
    if response.status in {429, 503}:
        assert int(headers["Retry-After"]) >= 1


ANSWERS: dict[str, tuple[int, Ask]] = {
    "success": (200, lambda api, _: api.get("/api/classes")),
    "head": (200, lambda api, _: api.request("HEAD", "/api/classes")),
    "created": (201, lambda api, course: api.put(f"/api/bookmarks/{course.cards['r1']}")),
    "empty": (204, lambda api, course: api.delete(f"/api/bookmarks/{course.cards['r1']}")),
    "not modified": (304, lambda api, _: api.get("/api/classes", headers={"If-None-Match": "*"})),
    "bad input": (400, lambda api, _: api.get("/api/classes?limit=0")),
    "stranger": (401, lambda api, _: api.get("/api/classes", by=None)),
    "forbidden": (403, lambda api, _: api.get("/api/admin/analytics/users")),
    "unknown path": (404, lambda api, _: api.get("/nowhere")),
    "unknown thing": (404, lambda api, course: api.get(f"/api/classes/{course.cards['r1']}")),
    "unknown method": (405, lambda api, _: api.request("PATCH", "/api/classes")),
    "conflict": (409, lambda api, _: register_twice(api)),
    "too large": (413, lambda api, _: send_too_much(api, "/api/sessions")),
    "wrong type": (415, lambda api, _: api.post("/api/sessions", data=b"x")),
}


async def send_too_much(api: Api, path: str, **options: Any) -> ClientResponse:
    """The answer to a body of a byte more than a mebibyte."""
    body = BytesIO(b"x" * ((1 << 20) + 1))
    return await api.post(path, data=body, headers={"Content-Type": "application/json"}, **options)


async def register_twice(api: Api) -> ClientResponse:
    """The answer to the second registration of an address."""
    body = {"email": "twice@example.com", "password": "long enough to be one"}
    await api.post("/api/auth/register", by=None, json=body)
    return await api.post("/api/auth/register", by=None, json=body)


async def test_every_status_has_every_header(api: Api, course: Course) -> None:
    """From 200 to 415, with and without a body, the headers are complete, each once."""
    for name, (status, ask) in ANSWERS.items():
        response = await ask(api, course)
        assert (name, status) == (name, response.status)
        assert_common(response)


async def test_a_405_keeps_its_allow(api: Api, course: Course) -> None:
    """The methods that a path does know are named."""
    response = await api.request("PATCH", f"/api/progress/cards/{course.cards['r1']}")
    assert {"GET", "HEAD", "PUT"} == set(response.headers["Allow"].split(","))


async def test_unlimited_routes_say_nothing_of_limits(api: Api) -> None:
    """Operations endpoints carry the other headers, and none of the limiter."""
    for path in ("/api/health", "/livez", "/readyz", "/api/metrics"):
        response = await api.get(path, by=None)
        assert_common(response, limited=False)
        assert "RateLimit" not in response.headers


async def test_an_empty_answer_has_no_body(api: Api, course: Course) -> None:
    """204 and 304 come without a body and without a type of one."""
    for name in ("empty", "not modified"):
        response = await ANSWERS[name][1](api, course)
        assert b"" == await response.read()
        assert "Content-Type" not in response.headers


@pytest.fixture
async def failing(aiohttp_client: AiohttpClient, settings: Settings, people: dict[str, Caller]) -> Api:
    """The service with one more route, which fails in the way that its path says."""
    app = create_app(settings)

    async def fail(request: web.Request) -> web.Response:
        kinds: dict[str, type[BaseException]] = {
            "value": ValueError, "timeout": TimeoutError, "os": OSError, "lookup": KeyError, "runtime": RuntimeError
        }  # fmt: skip
        raise kinds[request.match_info["kind"]](SECRET)

    route = app.router.add_get("/fail/{kind}", fail)
    app[RULES][route] = Rule(role="user", limits="reads")
    client: TestClient[Any, Any] = await aiohttp_client(app)
    return Api(client, people)


async def test_a_mistake_of_ours_is_a_500_that_tells_nothing(failing: Api) -> None:
    """Whatever is raised, the answer is a problem with the request id, and nothing of the error."""
    for kind in ("value", "timeout", "os", "lookup", "runtime"):
        response = await failing.get(f"/fail/{kind}")
        assert 500 == response.status
        assert_common(response)
        problem = await response.json()
        assert {"type", "title", "status", "detail", "code", "requestId"} == problem.keys()
        assert response.headers["X-Request-ID"] == problem["requestId"]
        for word in ("hunter2", "10.1.2.3", "Traceback", "Error:"):
            assert word not in await response.text()


async def test_hsts_is_sent_where_it_is_switched_on(
    settings: Settings, start_api: StartApi, api: Api
) -> None:
    """Behind TLS browsers are told to stay there; without the setting they are not."""
    assert "Strict-Transport-Security" not in (await api.get("/livez")).headers
    behind_tls = await start_api(replace(settings, hsts=True))
    for path in ("/livez", "/nowhere"):
        assert (
            (await behind_tls.get(path)).headers["Strict-Transport-Security"].startswith("max-age=31536000")
        )


async def test_a_refusal_by_the_limit_has_every_header(
    settings: Settings, start_api: StartApi, strict_limits: Path
) -> None:
    """The sixth login in a quarter of an hour is a 429 with the wait in its headers and its body."""
    api = await start_api(replace(settings, rate_limits_file=strict_limits))
    body = {"email": "ada@example.com", "password": "not the password"}
    statuses = []
    for _ in range(6):
        response = await api.post("/api/auth/login", by=None, json=body)
        assert_common(response)
        statuses.append(response.status)
    assert [401] * 5 + [429] == statuses
    problem = await response.json()
    assert "https://iana.org/assignments/http-problem-types#quota-exceeded" == problem["type"]
    assert ["auth"] == problem["violated-policies"]
    assert "0" == response.headers["X-RateLimit-Remaining"]


async def test_broken_json_is_charged_as_well(
    settings: Settings, start_api: StartApi, strict_limits: Path
) -> None:
    """A login whose body is too large, or no JSON, is a failure of its address, with its headers."""
    api = await start_api(replace(settings, rate_limits_file=strict_limits))
    first = await api.post(
        "/api/auth/login", by=None, data=b"{", headers={"Content-Type": "application/json"}
    )
    second = await send_too_much(api, "/api/auth/login", by=None)
    assert [(400, "19"), (413, "18")] == [
        (response.status, response.headers["X-RateLimit-Remaining"]) for response in (first, second)
    ]


async def test_an_unhealthy_service_says_when_to_come_back(api: Api) -> None:
    """The health report of a service without its database is a 503 with Retry-After, and no store keeps it."""

    async def fail() -> None:
        raise ConnectionRefusedError(SECRET)

    health: Health = api.services.health
    await health.run()  # the first of the watch, which this request would share
    del health._checks["database"]
    health.register("database", fail, critical=True)
    response = await api.get("/api/health", by=None)
    assert 503 == response.status
    assert ("1", "no-store") == (response.headers["Retry-After"], response.headers["Cache-Control"])
    body = await response.json()
    assert ("unhealthy", "refused") == (body["status"], body["services"]["database"]["error"])
    assert "hunter2" not in await response.text()


def test_workers_of_one_master_make_ids_of_their_own() -> None:
    """Workers are forked with the modules that the master has imported: with its random numbers, ids would repeat."""
    program = (
        "import os\n"
        "from server.domain.study.study_order import StudyPass\n"
        "from server.middleware.headers import new_request_id\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        print(new_request_id(), StudyPass.begin('2026-11-28').seed, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout
    ids, seeds = zip(*(line.split() for line in printed.splitlines()), strict=True)
    assert 2 == len(set(ids)) == len(set(seeds))

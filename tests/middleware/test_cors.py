"""Cross-origin requests, as a browser makes them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from server.settings import Settings
from tests.api.conftest import Api, StartApi

ORIGIN = "https://app.example.com"
EXPOSED = {
    "X-Request-ID", "X-Trace-ID", "Server-Timing", "X-Response-Time", "X-Performance-Rating", "X-RateLimit-Limit",
    "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy", "RateLimit", "Retry-After", "X-Cache",
}  # fmt: skip


@pytest.fixture
async def shared(settings: Settings, start_api: StartApi, strict_limits: Path) -> Api:
    """The service with one origin, under the limits that it ships with."""
    return await start_api(
        replace(settings, cors_origins=frozenset({ORIGIN}), rate_limits_file=strict_limits)
    )


async def test_a_listed_origin_may_read_every_answer(shared: Api) -> None:
    """Successes and errors alike name the origin, expose our headers and our timings, and vary by it."""
    paths = ("/api/classes", "/api/health", "/nowhere", "/api/classes/x")
    for path, by in product(paths, ("user", None)):
        headers = (await shared.get(path, by=by, headers={"Origin": ORIGIN})).headers
        assert ORIGIN == headers["Access-Control-Allow-Origin"]
        assert ORIGIN == headers["Timing-Allow-Origin"]
        assert {name.strip() for name in headers["Access-Control-Expose-Headers"].split(",")} >= EXPOSED
        assert "Origin" in [name.strip() for name in headers["Vary"].split(",")]
        assert 1 == len(headers.getall("Vary"))


FOREIGN = [
    "https://evil.example.com", f"{ORIGIN}.evil.com", f"{ORIGIN}:443", "http://app.example.com",
    "https://APP.example.com", "null", "*", "",
]  # fmt: skip


async def test_no_other_origin_may(shared: Api) -> None:
    """What is not exactly a listed origin learns nothing, and the answer still varies by it."""
    for method, origin in product(("GET", "OPTIONS"), FOREIGN):
        response = await shared.request(
            method, "/api/classes", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
        )
        assert [] == [
            name for name in response.headers if name.startswith(("Access-Control", "Timing-Allow"))
        ]
        assert "Origin" in response.headers["Vary"]


async def test_a_request_without_origin_is_told_that_the_answer_varies(shared: Api) -> None:
    """A shared cache must not hand this answer to a browser that asks from elsewhere."""
    headers = (await shared.get("/api/classes")).headers
    assert "Access-Control-Allow-Origin" not in headers
    assert "Authorization, Accept-Encoding, Origin" == headers["Vary"]


@pytest.mark.parametrize("origin", [ORIGIN, "https://evil.example.com"])
async def test_preflights_are_not_limited(shared: Api, origin: str) -> None:
    """More preflights than any policy allows pass, and leave the limit of the request itself untouched."""
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for _ in range(120):
        response = await shared.request("OPTIONS", "/api/auth/login", by=None, headers=preflight)
        assert 204 == response.status
        assert "RateLimit" not in response.headers
        assert "X-Request-ID" in response.headers
    if origin == ORIGIN:
        assert {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} == {
            name.strip() for name in response.headers["Access-Control-Allow-Methods"].split(",")
        }
        allowed = {
            name.strip().lower() for name in response.headers["Access-Control-Allow-Headers"].split(",")
        }
        assert {"authorization", "content-type", "idempotency-key", "if-none-match", "x-request-id",
                "x-time-zone", "traceparent"} <= allowed  # fmt: skip
        assert int(response.headers["Access-Control-Max-Age"]) > 0


async def test_options_without_a_preflight_is_an_unknown_method(shared: Api) -> None:
    """OPTIONS alone is a method that the path does not know."""
    response = await shared.request("OPTIONS", "/api/classes")
    assert (405, "GET,HEAD") == (response.status, response.headers["Allow"])


async def test_without_origins_nothing_is_shared(api: Api) -> None:
    """With no origin in the settings there is no trace of CORS."""
    headers = (await api.get("/api/classes", headers={"Origin": ORIGIN})).headers
    assert [] == [name for name in headers if name.startswith(("Access-Control", "Timing-Allow"))]
    assert "Authorization, Accept-Encoding" == headers["Vary"]

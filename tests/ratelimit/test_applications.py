"""The limiter in applications of others: five lines, aiohttp's middleware and decorator, ASGI's middleware."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from server.development import EmbeddedServer
from server.ratelimit import Limiter, Policy
from server.ratelimit.aiohttp import LIMITER, client_address, limited, limiter_context, rate_limit
from server.ratelimit.asgi import RateLimitMiddleware
from server.ratelimit.headers import QUOTA_EXCEEDED
from server.ratelimit.policies import parse_policies
from server.ratelimit.subjects import subject_of_peer
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS


@pytest.fixture
async def limiter(shared_redis: EmbeddedServer) -> AsyncIterator[Limiter]:
    """A limiter as users open one."""
    async with Limiter.from_url(shared_redis.url, deadline_ms=GENEROUS_DEADLINE_MS) as limiter:
        yield limiter


@pytest.mark.parametrize(
    ("text", "limit", "window_ms", "name"),
    [
        ("60/minute", 60, 60_000, "60/minute"),
        (" 5 per 15 minutes ", 5, 900_000, "5/15 minutes"),
        ("10 / 500ms", 10, 500, "10/500 milliseconds"),
        ("1_000/H", 1000, 3_600_000, "1000/hour"),
        ("1/1 day", 1, 86_400_000, "1/day"),
        ("3/2w", 3, 1_209_600_000, "3/2 weeks"),
    ],
)
def test_point_25_a_policy_is_parsed(text: str, limit: int, window_ms: int, name: str) -> None:
    """A limit and a window, with or without a count, in long words and short ones."""
    assert Policy(name, limit, window_ms) == Policy.parse(text)


@pytest.mark.parametrize(
    "text", ["", "60", "60minute", "60/fortnight", "0/second", "-1/s", "1.5/s", "60/0s", None]
)
def test_point_25_no_policy_is_made_of_anything_else(text: Any) -> None:
    """What is not a limit and a window is refused."""
    with pytest.raises(ValueError, match="polic"):
        Policy.parse(text)


@pytest.mark.parametrize(
    "policies", [(), ["5/minute", "5 per minute"], [Policy("a", 1, 1), Policy("a", 2, 1)]]
)
def test_point_25_policies_have_names_of_their_own(policies: Any) -> None:
    """No policy at all is refused, and so are two that would be counted as one."""
    with pytest.raises(ValueError, match="polic"):
        parse_policies(policies)
    assert ("10/second", "100/hour") == tuple(policy.name for policy in parse_policies("10/second; 100/hour"))


@pytest.mark.parametrize(
    ("host", "subject"),
    [
        ("192.0.2.1", "ip:192.0.2.1"),
        ("::ffff:192.0.2.1", "ip:192.0.2.1"),
        ("2001:db8::7", "ip:2001:db8::/64"),
        ("testclient", "host:testclient"),
        ("", None),
        (None, None),
    ],
)
def test_point_25_a_peer_is_a_subject(host: str | None, subject: str | None) -> None:
    """An IPv4 address is itself in both of its forms, an IPv6 address its network."""
    assert subject == subject_of_peer(host)


async def test_point_25_five_lines(limiter: Limiter, subject: str) -> None:
    """A subject is charged under a policy, text or not, and apart in each group."""
    policy = Policy.parse("2/minute")
    assert [True, True, False] == [(await limiter.hit(subject, policy)).allowed for _ in range(3)]
    assert not (await limiter.hit(subject, "2/minute")).allowed
    assert (await limiter.hit(subject, policy, group="other", cost=2)).allowed
    decision = await limiter.hit(subject, "5/minute", "2/minute", group="both", cost=3)
    assert [True, False] == [verdict.allowed for verdict in decision.verdicts]
    assert 4 == (await limiter.hit(subject, "5/minute", group="both")).verdicts[0].remaining


async def test_point_25_a_limiter_that_was_closed_asks_nothing(shared_redis: EmbeddedServer) -> None:
    """Its link ends with it; a limiter that was never opened says so."""
    limiter = Limiter.from_url(shared_redis.url)
    with pytest.raises(RuntimeError, match="not started"):
        await limiter.hit("user:1", "1/minute")
    async with limiter:
        pass
    assert "redis" != (await limiter.hit("user:1", "1/minute")).source


def user_of(request: web.Request) -> str | None:
    """What the tests' applications charge: the user that the request names."""
    return request.headers.get("User")


@limited("1/minute", by=user_of)
async def guarded(request: web.Request) -> web.Response:
    """A handler with a limit of its own beside the application's."""
    return web.Response(text=request.path)


@limited("10/minute", by=user_of, cost=lambda request: int(request.query["cost"]), group="costly")
async def costly(_request: web.Request) -> web.Response:
    """A handler whose requests cost what they ask for."""
    return web.Response()


@limited("1/minute", by=user_of, charge="failures")
async def sign_in(request: web.Request) -> web.Response:
    """A handler whose failures are limited."""
    if "wrong" in request.query:
        raise web.HTTPUnauthorized
    return web.Response()


@pytest.fixture
async def client(shared_redis: EmbeddedServer, aiohttp_client: AiohttpClient) -> Any:
    """An application under three limits; its limiter is its own."""
    app = web.Application(middlewares=[rate_limit(None, "3/minute", subject=user_of, group="app")])
    app.cleanup_ctx.append(limiter_context(shared_redis.url, deadline_ms=GENEROUS_DEADLINE_MS))
    app.router.add_get("/guarded", guarded)
    app.router.add_get("/costly", costly)
    app.router.add_get("/sign-in", sign_in)
    return await aiohttp_client(app)


async def test_point_25_the_middleware_writes_all_headers_and_the_problem(client: Any, subject: str) -> None:
    """Each response has the fields, of a handler that is not found too; the refusal is a problem."""
    headers = {"User": subject}
    for remaining in (2, 1, 0):
        response = await client.get("/nothing", headers=headers)
        assert 404 == response.status
        assert ("3", str(remaining)) == (
            response.headers["X-RateLimit-Limit"],
            response.headers["X-RateLimit-Remaining"],
        )
        assert '"3/minute";q=3;w=60' == response.headers["RateLimit-Policy"]
        assert response.headers["RateLimit"].startswith(f'"3/minute";r={remaining};t=')
    refused = await client.get("/nothing", headers=headers)
    assert (429, "application/problem+json", "no-store") == (
        refused.status,
        refused.content_type,
        refused.headers["Cache-Control"],
    )
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    problem = json.loads(await refused.text())
    assert (QUOTA_EXCEEDED, ["3/minute"]) == (problem["type"], problem["violated-policies"])


async def test_point_25_a_request_without_a_subject_is_not_limited(client: Any) -> None:
    """Where `subject` returns None nothing is charged and no field is written."""
    for _ in range(4):
        response = await client.get("/guarded")
        assert 200 == response.status
        assert "RateLimit" not in response.headers


async def test_point_25_the_decorator_adds_a_limit(client: Any, subject: str) -> None:
    """A handler's own limit shows beside the application's, and refuses by its own name."""
    first, second = [await client.get("/guarded", headers={"User": subject}) for _ in range(2)]
    assert '"3/minute";q=3;w=60, "1/minute";q=1;w=60' == first.headers["RateLimit-Policy"]
    assert ("0", "1") == (first.headers["X-RateLimit-Remaining"], first.headers["X-RateLimit-Limit"])
    assert 429 == second.status
    assert ["1/minute"] == (await second.json(content_type=None))["violated-policies"]
    assert second.headers["RateLimit"].startswith('"1/minute";r=0')


async def test_point_25_a_handler_has_a_cost(client: Any, subject: str) -> None:
    """A cost is a number, or what a function makes of the request."""
    statuses = [
        (await client.get("/costly", params={"cost": cost}, headers={"User": subject})).status
        for cost in (7, 4, 3)
    ]
    assert [200, 429, 200] == statuses


async def test_point_25_successes_are_given_back(client: Any, subject: str) -> None:
    """With `charge="failures"` only a failure counts."""
    assert [200, 401, 429] == [
        (await client.get(path, headers={"User": subject})).status
        for path in ("/sign-in", "/sign-in?wrong=1", "/sign-in")
    ]


async def test_point_25_the_peer_is_the_default_subject(
    limiter: Limiter, aiohttp_client: AiohttpClient
) -> None:
    """Without a subject, the connection's peer is charged."""
    app = web.Application(middlewares=[rate_limit(limiter, "1/minute", group="peer", version=12)])
    app[LIMITER] = limiter
    client = await aiohttp_client(app)
    assert [404, 429] == [(await client.get("/")).status for _ in range(2)]
    assert client_address.__doc__


async def test_point_25_asgi(limiter: Limiter, subject: str) -> None:
    """An ASGI application gets the fields and the refusal; other scopes pass."""
    sent: list[Any] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
            await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    limited_app = RateLimitMiddleware(app, limiter, "1/minute", subject=lambda scope: scope["user"])
    await limited_app({"type": "lifespan"}, receive, send)
    for _ in range(2):
        await limited_app({"type": "http", "user": subject}, receive, send)
    served, _, refused, body = sent
    assert (200, 429) == (served["status"], refused["status"])
    assert (b"a", b"b") in served["headers"]
    assert b'"1/minute";q=1;w=60' == dict(served["headers"])[b"ratelimit-policy"]
    assert str(len(body["body"])).encode() == dict(refused["headers"])[b"content-length"]
    assert QUOTA_EXCEEDED == json.loads(body["body"])["type"]

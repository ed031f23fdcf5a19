"""The whole service under test: the wired application on a database and a Redis of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from pytest_aiohttp import AiohttpClient

from server.api.services import SERVICES, Services
from server.app import create_app, service_runner
from server.development import EmbeddedServer
from server.domain.identity.tokens import AccessTokens, Caller
from server.settings import ROOT, Settings
from tests.api.conformance import check_answer
from tests.api.issuer import AUDIENCE, Issuer
from tests.support.course import COURSE, Course, run_statement
from tests.support.passwords import QuickPasswords

__all__ = ["COURSE", "Course", "run_statement"]

SECRET_KEY = "a key for tests only, long enough for HS256"
# For tests that are not about limits.
NO_LIMITS = ROOT / "bench" / "ratelimits.toml"


class Api:
    """A client that speaks as somebody: `await api.get("/api/classes", by="admin")`; by=None is a stranger."""

    def __init__(self, client: TestClient[Any, Any], people: dict[str, Caller]) -> None:
        self.client = client
        self.people = people
        self.tokens = AccessTokens(SECRET_KEY, lifetime_seconds=3600)
        self._issued: dict[Caller, str] = {}

    def token_of(self, name: str) -> str:
        """The token of one of `people`: the same for all of their requests, as a client's is."""
        caller = self.people[name]
        if caller not in self._issued:
            self._issued[caller] = self.tokens.issue(caller)
        return self._issued[caller]

    @property
    def services(self) -> Services:
        """What the application under test has wired."""
        services: Services = self.client.app[SERVICES]
        return services

    async def request(
        self, method: str, path: str, *, by: str | None = "user", documented: bool = True, **options: Any
    ) -> ClientResponse:
        """Send a request with the token of one of `people`.

        The answer has to be as the API's document says, but for tests that break the service: documented=False.
        """
        headers = dict(options.pop("headers", {}))
        if by is not None:
            headers.setdefault("Authorization", f"Bearer {self.token_of(by)}")
        response: ClientResponse = await self.client.request(method, path, headers=headers, **options)
        if documented:
            url = response.request_info.url
            check_answer(method, url.raw_path, response.status, response.headers, await response.read())
        return response

    async def get(self, path: str, **options: Any) -> ClientResponse:
        """GET."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> ClientResponse:
        """POST."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> ClientResponse:
        """PUT."""
        return await self.request("PUT", path, **options)

    async def delete(self, path: str, **options: Any) -> ClientResponse:
        """DELETE."""
        return await self.request("DELETE", path, **options)


@pytest.fixture
def redis_url(shared_redis: EmbeddedServer, redis_client: redis.Redis) -> str:
    """The session's Redis, emptied."""
    redis_client.flushall()
    return shared_redis.url


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """The settings of the service under test; a test may replace some and start its own with `start_api`.

    Redis has long to answer: a busy machine's is not down, and a page that it has is read from there.
    """
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        secret_key=SECRET_KEY,
        rate_limits_file=NO_LIMITS,
        cache_deadline_ms=10_000,
        rate_limit_deadline_ms=10_000,
    )


class ServiceServer(TestServer):
    """The application on the connections that it has in production."""

    async def _make_runner(self, **_options: Any) -> web.AppRunner:
        return service_runner(self.app)


StartApi = Callable[[Settings], Awaitable[Api]]


@pytest.fixture
def start_api(aiohttp_client: AiohttpClient, people: dict[str, Caller]) -> StartApi:
    """Start a service with settings of the test's own; stopped when the test ends. Its passwords are cheap to hash."""

    async def start(settings: Settings) -> Api:
        app = create_app(settings)
        app[SERVICES].accounts._passwords = QuickPasswords()
        return Api(await aiohttp_client(ServiceServer(app)), people)

    return start


@pytest.fixture
async def api(settings: Settings, start_api: StartApi) -> Api:
    """The service, with limits out of the way."""
    return await start_api(settings)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """A running issuer of tokens."""
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/jwks.json", issuer.publish)
    issuer.server = TestServer(app)
    await issuer.server.start_server()
    yield issuer
    await issuer.server.close()


@pytest.fixture
def external_settings(issuer: Issuer, settings: Settings) -> Settings:
    """The settings of a service that trusts the issuer beside itself."""
    return replace(
        settings,
        auth_jwks_url=f"{issuer.name}/jwks.json",
        auth_issuer=issuer.name,
        auth_audience=AUDIENCE,
    )


@pytest.fixture
async def external_api(external_settings: Settings, start_api: StartApi) -> Api:
    """The service, which trusts the issuer beside itself."""
    return await start_api(external_settings)


@pytest.fixture
def strict_limits() -> Path:
    """The rate limits that the service ships with."""
    return ROOT / "config" / "ratelimits.toml"

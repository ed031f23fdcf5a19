"""The routes that are found by the shape of a path are those that aiohttp finds."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Final

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp.typedefs import Handler
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from server.api.routes import ROUTES, Route, add_routes
from server.connections.dispatch import Dispatch

NAME: Final = web.AppKey("name", str)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
# Words of the routes, so that random paths come near them, and what must not be taken for a value.
WORDS = sorted({segment for route in ROUTES for segment in route.path.split("/")})
SEGMENTS = st.one_of(
    st.sampled_from([*WORDS, "", ".", "..", "a+b", "a%2Fb", "%7B", "{classId}", "%", "ä", "user:42", "a:b"]),
    st.text(max_size=3),
)
TEMPLATES = st.sampled_from([route.path.split("/") for route in ROUTES])


@st.composite
def paths(draw: st.DrawFn) -> str:
    """A path of a route with other segments in some places, or any other path."""
    if draw(st.booleans()):
        segments = list(draw(TEMPLATES))
        for place, segment in enumerate(segments):
            if segment.startswith("{") or (place and draw(st.integers(0, 9)) == 0):
                segments[place] = draw(SEGMENTS)
    else:
        segments = ["", *draw(st.lists(SEGMENTS, min_size=1, max_size=6))]
    path = "/".join(segments)
    return "".join(char for char in path if char not in "?#\r\n") if path.startswith("/") else "/"


async def ask_aiohttp(_request: web.Request) -> web.StreamResponse:
    """Stands for aiohttp's own way, taken for what is not found."""
    return web.Response()


def has_a_simple_path(route: Route) -> bool:
    """Whether there is one value at the most, and one segment after it: the others are left to aiohttp."""
    after = route.path.partition("}")[2]
    return "{" not in after and after.count("/") < 2


def request_of(method: str, path: str) -> web.Request:
    """A request whose path is as it was sent, as aiohttp's parser hands it over."""
    request = make_mocked_request(method, "/").clone(rel_url=URL.build(path=path, encoded=True))
    request._match_info = None
    return request


@web.middleware
async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The first of two."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        return web.Response(text=f"outer {error.text}", status=error.status)
    return web.Response(text=f"outer {response.text}")  # type: ignore[attr-defined]


@web.middleware
async def inner(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The second."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.text = "inner"
        raise
    return web.Response(text=f"inner {response.text}")  # type: ignore[attr-defined]


async def handler(request: web.Request) -> web.StreamResponse:
    """Says which application it is of."""
    return web.Response(text=f"{request.match_info['id']} {request.app[NAME]}")


@pytest.fixture(scope="module")
def app() -> web.Application:
    """The service's routes, and nothing else of it."""
    app = web.Application()
    add_routes(app)
    app.freeze()
    return app


def test_the_private_name_is_that_of_this_version() -> None:
    """Aiohttp 3.14 has it; when this fails after an update, read `_handle` in web_app.py before this is changed."""
    assert aiohttp.__version__.startswith("3.14.")
    assert web.Request._match_info is None


@settings(deadline=None)
@given(path=paths(), method=st.sampled_from(METHODS))
async def test_a_match_is_the_one_that_aiohttp_finds(app: web.Application, path: str, method: str) -> None:
    """Whatever the path, it is the same route with the same values, or aiohttp is asked."""
    request = request_of(method, path)
    expected = await app.router.resolve(request)

    await_nothing(Dispatch(app, ask_aiohttp)(request))

    if (found := request._match_info) is not None:
        assert found.route is expected.route
        assert dict(found) == dict(expected)
        assert found.apps == (app,)
        assert found.current_app is app


@pytest.mark.parametrize("route", [*filter(has_a_simple_path, ROUTES)], ids=lambda route: route.name)
async def test_every_route_is_found_without_asking_aiohttp(app: web.Application, route: Route) -> None:
    """Nearly every route of the service is found by its path, whatever its value is."""
    path = "/".join(
        "0b8e7a52-6c1f-4f0e-9b7a-000000000001" if segment.startswith("{") else segment
        for segment in route.path.split("/")
    )
    request = request_of(route.method, path)

    await_nothing(Dispatch(app, ask_aiohttp)(request))

    assert request.match_info.route.handler is route.handler


def await_nothing(response: Awaitable[web.StreamResponse]) -> None:
    """End a handler before it has begun."""
    assert isinstance(response, Coroutine)
    response.close()


@pytest.mark.parametrize("path", ["/there/7", "/nowhere", "/there/7%20", "/numbers/7", "/numbers/seven"])
async def test_the_answer_is_that_of_the_application(path: str) -> None:
    """Middlewares are passed in their order, and what is not there is answered as by aiohttp alone."""
    app = web.Application(middlewares=[outer, inner])
    app[NAME] = "ours"
    app.router.add_get("/there/{id}", handler)
    app.router.add_get(r"/numbers/{id:\d+}", handler)
    app.freeze()

    expected = await app._handle(request_of("GET", path))
    response = await Dispatch(app, app._handle)(request_of("GET", path))

    assert isinstance(expected, web.Response)
    assert isinstance(response, web.Response)
    assert (response.status, response.text) == (expected.status, expected.text)
    assert "outer inner" in str(response.text)

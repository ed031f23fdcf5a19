"""Finds the handler of a request by the shape of its path, and calls it through the application's middlewares.

aiohttp's router tries one resource after another, each in a coroutine and by a regular expression, and its application
calls every middleware by a partial function. Here a path is looked up, and the calls are put together once for each
route. What is not found is left to aiohttp, which knows what is rarely asked for, and the reason why there is nothing:
`tests/connections/test_dispatch.py` compares both.

The match of a request is a private attribute of aiohttp's; the test names the version that was read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Found(NamedTuple):
    """A route, the name of the value in its path (empty without one), and its handler behind the middlewares."""

    route: web.AbstractRoute
    name: str
    handler: Handler


_ByMethod = dict[str, _Found]


class Dispatch:
    """Answers requests as an application would.

    Args:
        app: the application, started: its routes and middlewares are fixed. It has no applications below it.
        handle: its own way, for what is not found here.
    """

    def __init__(self, app: web.Application, handle: Handle) -> None:
        self._app = app
        self._handle = handle
        # By the path; by what comes before the value that ends it; by what comes before and after a value within it.
        self._whole: dict[str, _ByMethod] = {}
        self._ending: dict[str, _ByMethod] = {}
        self._within: dict[tuple[str, str], _ByMethod] = {}
        for route in app.router.routes():
            if isinstance(route.resource, web.PlainResource | web.DynamicResource):
                self._add(route, route.resource.canonical)

    def __call__(self, request: web.Request) -> Awaitable[web.StreamResponse]:
        """The response to a request, once it is awaited."""
        path, value = request.rel_url.raw_path, ""
        by_method = self._whole.get(path)
        if by_method is None:
            before, _, value = path.rpartition("/")
            by_method = self._ending.get(before)
            if by_method is None:
                after = value
                before, _, value = before.rpartition("/")
                by_method = self._within.get((before, after))
            if by_method is None or not value or "%" in value or "{" in value or "}" in value:
                return self._handle(request)
        found = by_method.get(request.method)
        if found is None:
            return self._handle(request)
        route, name, handler = found
        match = web.UrlMappingMatchInfo({name: value} if name else {}, route)
        match.add_app(self._app)
        match.freeze()
        request._match_info = match  # noqa: SLF001 - see the module
        return handler(request)

    def _add(self, route: web.AbstractRoute, template: str) -> None:
        before, brace, rest = template.partition("/{")
        name, _, after = rest.partition("}")
        if not brace:
            place = self._whole.setdefault(template, {})
        elif not _takes_anything(route, name):
            return
        elif not after:
            place = self._ending.setdefault(before, {})
        elif after.count("/") == 1 and "{" not in after:
            place = self._within.setdefault((before, after[1:]), {})
        else:
            return
        handler: Handler = route.handler
        for middleware in reversed(self._app.middlewares):
            handler = _behind(middleware, handler)
        place[route.method] = _Found(route, name, handler)


def _takes_anything(route: web.AbstractRoute, name: str) -> bool:
    """Whether a value may be any segment of a path: `{name}`, and not `{name:expression}`."""
    pattern = route.get_info().get("pattern")
    return pattern is not None and f"(?P<{name}>[^{{}}/]+)" in pattern.pattern


def _behind(middleware: Middleware, handler: Handler) -> Handler:
    def call(request: web.Request) -> Awaitable[web.StreamResponse]:
        return middleware(request, handler)

    return call

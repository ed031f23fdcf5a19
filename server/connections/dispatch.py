"""Finds the handler of a request by the shape of its path, and calls it through the application's middlewares.

aiohttp's router tries one resource after another, each in a coroutine and by a regular expression, and its application
calls every middleware by a partial function. Here the routes are a tree of the segments of their paths, and the calls
are put together once for each route. What the tree does not lead to is left to aiohttp, which finds what is rarely
asked for and the reason why there is nothing: `tests/connections/test_dispatch.py` compares both.

The match of a request is a private attribute of aiohttp's; the test names the version that was read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Node:
    """What the segments of a path so far lead to."""

    __slots__ = ("any", "ends", "next")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        """By the segment that follows."""
        self.any: _Node | None = None
        """Whatever segment follows, as the value of a name."""
        self.ends: dict[str, tuple[web.AbstractRoute, tuple[str, ...], Handler]] = {}
        """By method: the route, the names of its values, its handler behind the middlewares."""


class Dispatch:
    """Answers requests as an application would.

    Args:
        app: the application, started: its routes and middlewares are fixed. It has no applications below it.
        handle: its own way, for what is not found here.
    """

    def __init__(self, app: web.Application, handle: Handle) -> None:
        self._app = app
        self._handle = handle
        self._root = _Node()
        for route in app.router.routes():
            if isinstance(route.resource, web.PlainResource | web.DynamicResource):
                self._add(route, route.resource.canonical)

    def __call__(self, request: web.Request) -> Awaitable[web.StreamResponse]:
        """The response to a request, once it is awaited."""
        path = request.rel_url.raw_path
        if "%" in path or "{" in path or "}" in path:
            return self._handle(request)
        node = self._root
        values = []
        for segment in path.split("/"):
            following = node.next.get(segment)
            if following is None:
                following = node.any
                if following is None or not segment:
                    return self._handle(request)
                values.append(segment)
            node = following
        found = node.ends.get(request.method)
        if found is None:
            return self._handle(request)
        route, names, handler = found
        match = web.UrlMappingMatchInfo(dict(zip(names, values, strict=True)), route)
        match.add_app(self._app)
        match.freeze()
        request._match_info = match  # noqa: SLF001 - see the module
        return handler(request)

    def _add(self, route: web.AbstractRoute, template: str) -> None:
        node, names = self._root, []
        for segment in template.split("/"):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.any = node = node.any or _Node()
            else:
                node = node.next.setdefault(segment, _Node())
        handler: Handler = route.handler
        for middleware in reversed(self._app.middlewares):
            handler = _behind(middleware, handler)
        node.ends[route.method] = (route, tuple(names), handler)


def _behind(middleware: Middleware, handler: Handler) -> Handler:
    def call(request: web.Request) -> Awaitable[web.StreamResponse]:
        return middleware(request, handler)

    return call

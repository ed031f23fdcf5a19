"""The OpenAPI 3.1 document: what routes.py says of every route, with what OPERATIONS says of its handler."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from aiohttp import hdrs
from apispec import APISpec

from server import __version__
from server.api import dashboard, documentation
from server.api.answers.kinds import in_camel_case
from server.api.answers.problems import Problem
from server.api.openapi.components import (
    BEARER,
    HEADERS,
    ON_EVERY_RESPONSE,
    ON_LIMITED_ROUTES,
    PROBLEMS,
    REQUEST_HEADERS,
    SECURITY_SCHEMES,
)
from server.api.openapi.operation import Content, Operation, Result
from server.api.openapi.operations import OPERATIONS
from server.api.openapi.schemas import SchemaPlugin
from server.api.responses import PROBLEM_JSON
from server.api.routes import ROUTES, Route
from server.api.writes import IDEMPOTENCY_KEY, REPLAYED

_PLACE = re.compile(r"\{(\w+)\}")
# In the order of the page; what the paths of each begin with.
_TAGS = {
    "Reading": ("/api/classes", "/api/decks"),
    "Studying": ("/api/progress", "/api/sessions", "/api/bookmarks", "/api/stats"),
    "Identity": ("/api/auth", "/api/profile"),
    "Administration": ("/api/admin",),
    "Operations": ("/api/health", "/api/metrics", "/api/dashboard", "/dashboard", "/livez", "/readyz"),
    "Documentation": ("/api/openapi.json", "/api/docs"),
}
_FILES = {"/api/docs/{file}": documentation.asset_names, "/dashboard/{file}": dashboard.asset_names}
_IDEMPOTENT_STATUSES = {408, 413, 415, 422}


@functools.cache
def openapi_document() -> bytes:
    """The document as JSON, made once a process."""
    return orjson.dumps(_specify().to_dict())


def _specify() -> APISpec:
    spec = APISpec(
        title="Mastery",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[SchemaPlugin()],
        info={"description": "Flashcards to study, with what each student has learnt of them."},
        servers=[{"url": "/"}],
        tags=[{"name": name} for name in _TAGS],
    )
    for name, scheme in SECURITY_SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    for name, header in HEADERS.items():
        spec.components.header(name, header)
    for name, parameter in REQUEST_HEADERS.items():
        spec.components.parameter(name, "header", parameter)
    for name, description, headers in PROBLEMS.values():
        problem = Result(
            description=description,
            contents=(Content(media_type=PROBLEM_JSON, schema=Problem()),),
            headers=(*ON_LIMITED_ROUTES, *headers),
        )
        spec.components.response(name, _response(problem))
    for route in ROUTES:
        spec.path(
            path=route.path, operations={route.method.lower(): _operation(route, OPERATIONS[route.handler])}
        )
    return spec


def _operation(route: Route, operation: Operation) -> dict[str, Any]:
    summary, _, more = (inspect.getdoc(route.handler) or "").partition("\n")
    module = route.handler.__module__.removeprefix("server.api.").replace(".", "_")
    described: dict[str, Any] = {
        "operationId": f"{in_camel_case(module)}.{in_camel_case(route.handler.__name__)}",
        "summary": summary.rstrip("."),
        "tags": [next(tag for tag, prefixes in _TAGS.items() if route.path.startswith(prefixes))],
        "parameters": list(_parameters(route, operation)),
        "responses": dict(_responses(route, operation)),
    }
    if more.strip():
        described["description"] = more.strip()
    if route.audience != "public":
        described["security"] = [{BEARER: []}]
    elif 401 in operation.errors and not operation.bodies:  # the METRICS_TOKEN, where one is set
        described["security"] = [{}, {BEARER: []}]
    if operation.bodies:
        described["requestBody"] = {"required": True, "content": _content(operation.bodies)}
    return described


def _parameters(route: Route, operation: Operation) -> Iterator[dict[str, Any] | str]:
    for name in _PLACE.findall(route.path):
        schema: dict[str, Any] = {"type": "string", "format": "uuid"}
        if name == "subject":
            schema = {"type": "string", "pattern": "^(user|ip):.+$", "example": "ip:192.0.2.1"}
        elif name == "file":
            schema = {"type": "string", "enum": _FILES[route.path]()}
        yield {"in": "path", "name": name, "required": True, "schema": schema}
    if operation.query is not None:
        yield {"in": "query", "schema": operation.query}
    if 304 in operation.results:
        yield "If-None-Match"
    if is_idempotent(route):
        yield IDEMPOTENCY_KEY
    yield from operation.headers


def _responses(route: Route, operation: Operation) -> Iterator[tuple[str, Any]]:
    headers = ON_LIMITED_ROUTES if route.limits is not None else ()
    if is_idempotent(route):
        headers = (*headers, REPLAYED)
    for status in sorted({*operation.results, *operation.errors, *_implied_errors(route, operation)}):
        result = operation.results.get(status)
        if result is None:
            yield str(status), PROBLEMS[status][0]
        else:
            yield str(status), _response(result, headers)


def _implied_errors(route: Route, operation: Operation) -> set[int]:
    """What can go wrong at a route like this."""
    statuses = set()
    if route.limits is not None:
        statuses |= {400, 429, 503}
    if route.audience != "public":
        statuses |= {401, 503}
    if route.audience == "admin":
        statuses |= {403}
    if _PLACE.search(route.path):
        statuses |= {404}
    if operation.bodies:
        statuses |= {408, 413, 415}
    if is_idempotent(route):
        statuses |= _IDEMPOTENT_STATUSES
    return statuses


def is_idempotent(route: Route) -> bool:
    """Whether a route takes an Idempotency-Key: what a signed-in caller writes, and whose answer may lie in a table."""
    is_secret = route.path.startswith("/api/auth/") or route.path.endswith("/password-reset")
    is_write = route.method != hdrs.METH_GET and route.audience != "public" and route.limits is not None
    return is_write and not is_secret


def _response(result: Result, headers: Iterable[str] = ()) -> dict[str, Any]:
    names = (*ON_EVERY_RESPONSE, *headers, *result.headers)
    response: dict[str, Any] = {"description": result.description, "headers": {name: name for name in names}}
    if result.contents:
        response["content"] = _content(result.contents)
    return response


def _content(contents: Iterable[Content]) -> dict[str, Any]:
    return {content.media_type: {"schema": content.schema} for content in contents}

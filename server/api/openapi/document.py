"""The OpenAPI 3.1 document, made from `routes.py` and from what the handlers take and answer (`operations.py`).

Marshmallow schemas become JSON Schema. What many operations share, such as headers and problems, is a component that
they refer to.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import orjson
from aiohttp import hdrs
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_instance
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields

from server import __version__
from server.api import assets as documentation
from server.api import dashboard
from server.api.answers.kinds import Problem, in_camel_case
from server.api.fields import Flag, FlagWord, Identifier, IdentifierList, PastMoment, Text
from server.api.openapi.operations import OPERATIONS, Content, Operation, Result
from server.api.responses import PROBLEM_JSON
from server.api.routes import ROUTES, Route
from server.api.writes import IDEMPOTENCY_KEY, REPLAYED

_UUID = {"type": "string", "format": "uuid"}
_KINDS: tuple[tuple[type[fields.Field[Any]], dict[str, Any]], ...] = (
    (Identifier, _UUID),
    (IdentifierList, {"type": "array", "items": _UUID, "minItems": 1}),
    (Flag, {"type": "boolean"}),
    (FlagWord, {"type": "boolean"}),
    (PastMoment, {"type": "string", "format": "date-time", "description": "with a zone, not in the future"}),
)


class SchemaPlugin(MarshmallowPlugin):
    """Apispec's plugin, which also knows our fields and takes a schema's docstring for its description."""

    def __init__(self) -> None:
        super().__init__(schema_name_resolver=_name_of)

    def init_spec(self, spec: APISpec) -> None:
        """Teach the converter that the plugin has made for itself."""
        super().init_spec(spec)
        if self.converter is None:
            raise RuntimeError("the plugin has made no converter")
        self.converter.add_attribute_function(_kind_of_our_own)  # type: ignore[no-untyped-call]
        self.converter.add_parameter_attribute_function(_in_a_query)

    def schema_helper(  # type: ignore[override]
        self, name: str, definition: dict[str, Any], schema: Any = None, **options: Any
    ) -> dict[str, Any] | None:
        """A component's schema."""
        described: dict[str, Any] | None = super().schema_helper(  # type: ignore[no-untyped-call]
            name, definition, schema, **options
        )
        if described is not None:
            described["description"] = inspect.getdoc(type(resolve_schema_instance(schema)))
        return described


def _name_of(schema: type[Schema] | Schema) -> str:
    """Deck for an answer, DeckRequest for what makes one, DeckChanges for what changes one."""
    instance = resolve_schema_instance(schema)
    name = type(instance).__name__
    if not name.endswith("Schema"):
        return name
    return name.removesuffix("Schema") + ("Changes" if instance.partial else "Request")


def _kind_of_our_own(
    _converter: OpenAPIConverter, field: fields.Field[Any], ret: dict[str, Any]
) -> dict[str, Any]:
    """Called last for each field. Bound to the converter by apispec, which says `ret` for what is known so far."""
    is_of_changes = isinstance(field.parent, Schema) and bool(field.parent.partial)
    if is_of_changes or ret.get("default", field) is None:
        ret.pop("default", None)
    if isinstance(field, Text):
        ret["description"] = "Trimmed before it is measured."
    for kind, described in _KINDS:
        if isinstance(field, kind):
            return described | ({"type": [described["type"], "null"]} if field.allow_none else {})
    return {}


def _in_a_query(
    _converter: OpenAPIConverter, field: fields.Field[Any], ret: dict[str, Any]
) -> dict[str, Any]:
    """Called last for each parameter of a query, where there is no null: what is not given is left out."""
    schema = ret["schema"]
    if isinstance(schema.get("type"), list):
        (schema["type"],) = (kind for kind in schema["type"] if kind != "null")
    return {"style": "form", "explode": True} if isinstance(field, IdentifierList) else {}


BEARER = "bearer"
SECURITY_SCHEMES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        BEARER: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token of /api/auth, or of the OIDC issuer that the service is set up with.",
        }
    }
)

_NUMBER = {"type": "string", "pattern": "^[0-9]+$"}


def _header(
    description: str, schema: dict[str, Any] | None = None, *, always: bool = False
) -> dict[str, Any]:
    header: dict[str, Any] = {
        "description": description,
        "schema": schema or {"type": "string", "minLength": 1},
    }
    return {**header, "required": True} if always else header


# Of a response, by name.
HEADERS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "X-Request-ID": _header(
            "The caller's, if it is one that we take; else a new one.",
            {"type": "string", "pattern": "^[A-Za-z0-9._:+/=-]{20,200}$"},
            always=True,
        ),
        "X-Trace-ID": _header("The trace-id of a valid traceparent; else the request id.", always=True),
        "Server-Timing": _header(
            "Wall time in milliseconds, of the whole and of its parts (db, cache, limit) where they happened.",
            {
                "type": "string",
                "pattern": r"^total;dur=[0-9]+\.[0-9]{2}(, (db|cache|limit);dur=[0-9]+\.[0-9]{2})*$",
            },
            always=True,
        ),
        "X-Response-Time": _header(
            "The whole again.", {"type": "string", "pattern": r"^[0-9]+\.[0-9]{2}ms$"}, always=True
        ),
        "X-Performance-Rating": _header(
            "By thresholds of the settings.",
            {"type": "string", "enum": ["Good", "Needs Improvement", "Poor"]},
            always=True,
        ),
        "Cache-Control": _header("Which caches may store the response; none stores an error.", always=True),
        "X-RateLimit-Limit": _header("Of the policy closest to exhaustion, as are the next two.", _NUMBER),
        "X-RateLimit-Remaining": _header("How many more requests.", _NUMBER),
        "X-RateLimit-Reset": _header("When there is room again.", {"type": "string", "format": "date-time"}),
        "RateLimit-Policy": _header("draft-ietf-httpapi-ratelimit-headers-11: every policy that counted."),
        "RateLimit": _header("draft-ietf-httpapi-ratelimit-headers-11: what is left of each."),
        "Retry-After": _header("Whole seconds.", _NUMBER),
        "WWW-Authenticate": _header("How to sign in.", {"type": "string", "const": "Bearer"}, always=True),
        "ETag": _header("A weak entity tag, for If-None-Match.", always=True),
        "Vary": _header("Which request headers the response depends on.", always=True),
        "X-Cache": _header(
            "What the service's cache gave.", {"type": "string", "enum": ["HIT", "MISS", "STALE", "BYPASS"]}
        ),
        "Idempotency-Replayed": _header(
            "This is the answer to an earlier request with the same Idempotency-Key.",
            {"type": "string", "const": "true"},
        ),
        "X-Time-Zone-Used": _header(
            "Where the student's day began: sent where the request's X-Time-Zone is not an IANA name.",
        ),
        "Location": _header(
            "Where the new one is.", {"type": "string", "format": "uri-reference"}, always=True
        ),
    }
)
ON_EVERY_RESPONSE = (
    "X-Request-ID",
    "X-Trace-ID",
    "Server-Timing",
    "X-Response-Time",
    "X-Performance-Rating",
    "Cache-Control",
)
ON_LIMITED_ROUTES = (
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
)

# Of a request, by the names of their components.
REQUEST_HEADERS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "If-None-Match": {
            "description": "The ETag of the body that the client has; 304 if it is still right.",
            "schema": {"type": "string"},
        },
        "Idempotency-Key": {
            "description": "A repeat within 24 hours gets the first answer and changes nothing.",
            "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
            "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
        },
        "X-Time-Zone": {
            "description": "Where the student's day begins, an IANA name; else it begins in the profile's zone.",
            "schema": {"type": "string"},
            "example": "Europe/Berlin",
        },
    }
)

# Errors by status: the component's name, when it happens, and headers of its own.
PROBLEMS: Mapping[int, tuple[str, str, tuple[str, ...]]] = MappingProxyType(
    {
        400: (
            "BadRequest",
            "Something in the request is not valid; `errors` names up to 20 of what is wrong.",
            (),
        ),
        401: ("Unauthorized", "Nobody that the service knows is asking.", ("WWW-Authenticate",)),
        403: (
            "Forbidden",
            "The caller's role does not allow this, or its network is blocked: see `code`.",
            (),
        ),
        404: ("NotFound", "There is nothing here, or nothing that the caller may see.", ()),
        408: ("RequestTimeout", "The body did not arrive in time; the connection is closed.", ()),
        409: ("Conflict", "The request contradicts what is stored.", ()),
        413: (
            "ContentTooLarge",
            "The body is larger than 1 MiB; an import's, than 10 MiB or 100,000 rows: see `code`.",
            (),
        ),
        415: (
            "UnsupportedMediaType",
            "The Content-Type or Content-Encoding is not one of this operation's.",
            (),
        ),
        422: (
            "UnprocessableContent",
            "The Idempotency-Key belongs to another request, or there is no such time zone: see `code`.",
            (),
        ),
        429: ("TooManyRequests", "A rate limit has no room for this request.", ("Retry-After",)),
        503: ("ServiceUnavailable", "A part that this needs is unavailable; try again.", ("Retry-After",)),
    }
)


_PLACE = re.compile(r"\{(\w+)\}")
# In the order of the page; what the paths of each begin with.
_TAGS = {
    "Reading": ("/api/classes", "/api/decks"),
    "Studying": ("/api/study", "/api/progress", "/api/sessions", "/api/bookmarks", "/api/stats"),
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
        statuses |= {400, 403, 429, 503}  # 403: the client's network is blocked
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

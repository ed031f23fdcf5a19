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
from marshmallow import Schema, fields, validate

from server import __version__
from server.api import assets, operations
from server.api.answers.kinds import Problem, in_camel_case
from server.api.openapi.components import (
    ENUMS,
    HEADERS,
    ON_EVERY_RESPONSE,
    ON_LIMITED_ROUTES,
    PROBLEMS,
    REQUEST_HEADERS,
    SCHEMAS,
)
from server.api.openapi.operations import OPERATIONS, Content, Operation, Result
from server.api.openapi.texts import CLIENT_GROUPS, EXAMPLES, INTRODUCTION, PARAMETERS, PROPERTIES, TAGS
from server.api.responses import PROBLEM_JSON
from server.api.routes import ROUTES, Route
from server.api.schemas import Flag, FlagWord, Identifier, IdentifierList, PastMoment, Text
from server.api.writes import IDEMPOTENCY_KEY, REPLAYED

_UUID = {"type": "string", "format": "uuid"}
_KINDS: tuple[tuple[type[fields.Field[Any]], dict[str, Any]], ...] = (
    (Identifier, _UUID),
    (IdentifierList, {"type": "array", "items": _UUID, "minItems": 1}),
    (Flag, {"type": "boolean"}),
    (FlagWord, {"type": "boolean"}),
    (PastMoment, {"type": "string", "format": "date-time", "description": "with a zone, not in the future"}),
)

_UNITS = frozenset({"days", "seconds", "milliseconds", "percent, rounded half up"})


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
            if name in EXAMPLES:
                described["examples"] = [EXAMPLES[name]]
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
    default = ret.get("default")
    # In words where it is of a body: generators of clients take a property with a default for one that is always there.
    if default is None or not _is_parameter(field):
        ret.pop("default", None)
    known = next((described for kind, described in _KINDS if isinstance(field, kind)), None)
    enum = _enum_of(field)
    if enum is not None:
        ret.pop("type", None)
        ret.pop("enum", None)
        reference = {"$ref": f"#/components/schemas/{enum}"}
        described = {"anyOf": [reference, {"type": "null"}]} if _may_be_null(field) else reference
    elif known is not None:
        described = known | ({"type": [known["type"], "null"]} if field.allow_none else {})
    else:
        described = {}
    sentence = ret.get("description") or described.get("description") or _meaning_of(field)
    if sentence in _UNITS:
        sentence = f"{_meaning_of(field)} In {sentence}."
    if isinstance(field, Text) and not _is_parameter(field):
        sentence = f"{sentence} Trimmed before it is measured."
    is_of_changes = isinstance(field.parent, Schema) and bool(field.parent.partial)
    if default is not None and not _is_parameter(field) and not is_of_changes:
        sentence = f"{sentence} `{orjson.dumps(default).decode()}` where it is left out."
    return described | {"description": sentence}


def _enum_of(field: fields.Field[Any]) -> str | None:
    """The name of the component that lists a field's values, if they are listed."""
    for validator in field.validators:
        if isinstance(validator, validate.OneOf):
            choices = tuple(choice for choice in validator.choices if choice is not None)
            return next((name for name, (listed, _) in ENUMS.items() if listed == choices), None)
    return None


def _may_be_null(field: fields.Field[Any]) -> bool:
    return bool(field.allow_none) and not _is_parameter(field)


def _is_parameter(field: fields.Field[Any]) -> bool:
    return type(field.parent).__name__.endswith(("QuerySchema", "PageSchema"))


def _meaning_of(field: fields.Field[Any]) -> str:
    """The description of a field by its name. Items of lists have none of their own: the list is described."""
    if not isinstance(field.parent, Schema):
        return "One of them."
    name = field.data_key or field.name or ""
    if _is_parameter(field):
        return PARAMETERS[name]
    return PROPERTIES.get(f"{_name_of(field.parent)}.{name}") or PROPERTIES[name]


def _in_a_query(
    _converter: OpenAPIConverter, field: fields.Field[Any], ret: dict[str, Any]
) -> dict[str, Any]:
    """Called last for each parameter of a query, where there is no null: what is not given is left out."""
    schema = ret["schema"]
    if isinstance(schema.get("type"), list):
        (schema["type"],) = (kind for kind in schema["type"] if kind != "null")
    if None in schema.get("enum", ()):
        schema["enum"] = [choice for choice in schema["enum"] if choice is not None]
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

_PLACE = re.compile(r"\{(\w+)\}")
_FILES = {"/api/docs/{file}": assets.asset_names, "/dashboard/{file}": operations.asset_names}
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
        info={
            "description": INTRODUCTION,
            "contact": {"name": "The administrators of this service"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        servers=[{"url": "/", "description": "The service that this document is from."}],
        tags=[{"name": name, "description": description} for name, (_, description) in TAGS.items()],
    )
    for name, schema in SCHEMAS.items():
        spec.components.schema(name, schema)
    for name, scheme in SECURITY_SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    for name, header in HEADERS.items():
        spec.components.header(name, header)
    for name, parameter in REQUEST_HEADERS.items():
        spec.components.parameter(name, "header", parameter)
    refused = ("Refused", "The request is not one that HTTP or the service allows: see `code`.", ())
    for name, description, headers in (*PROBLEMS.values(), refused):
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
    group = next(name for prefix, name in CLIENT_GROUPS.items() if route.path.startswith(prefix))
    described: dict[str, Any] = {
        "operationId": f"{group}.{in_camel_case(route.handler.__name__)}",
        "summary": summary.rstrip("."),
        "description": _description(route, more),
        "tags": [next(tag for tag, (prefixes, _) in TAGS.items() if route.path.startswith(prefixes))],
        "parameters": list(_parameters(route, operation)),
        "responses": dict(_responses(route, operation)),
    }
    if route.audience != "public":
        described["security"] = [{BEARER: []}]
    elif 401 in operation.errors and not operation.bodies:  # the METRICS_TOKEN, where one is set
        described["security"] = [{}, {BEARER: []}]
    else:
        described["security"] = []
    if operation.bodies:
        described["requestBody"] = {"required": True, "content": _content(operation.bodies)}
    return described


def _description(route: Route, more: str) -> str:
    """What the handler's docstring adds to its summary, then who may call it and which limit it is under."""
    callers = {"public": "Anybody", "admin": "Administrators"}.get(
        route.audience, "Students and administrators"
    )
    limits = "not rate limited" if route.limits is None else f"rate limited as `{route.limits}`"
    return "\n\n".join(filter(None, (inspect.cleandoc(more), f"{callers} may call it; it is {limits}.")))


def _parameters(route: Route, operation: Operation) -> Iterator[dict[str, Any] | str]:
    for name in _PLACE.findall(route.path):
        schema: dict[str, Any] = {**_UUID, "examples": ["7b1f4a52-0c1e-4f4e-9d3a-5a8f3f1c2b60"]}
        if name == "subject":
            schema = {"type": "string", "pattern": "^(user|ip):.+$", "examples": ["ip:192.0.2.1"]}
        elif name == "file":
            schema = {"type": "string", "enum": _FILES[route.path]()}
        yield {
            "in": "path",
            "name": name,
            "required": True,
            "description": PARAMETERS[name],
            "schema": schema,
        }
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
    if not any(400 <= status < 500 for status in (*operation.errors, *_implied_errors(route, operation))):
        yield "4XX", "Refused"


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

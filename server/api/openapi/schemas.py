"""Marshmallow schemas as JSON Schema: names for the components, and our own kinds of fields."""

from __future__ import annotations

import inspect
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_instance
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields

from server.api.fields import Flag, FlagWord, Identifier, IdentifierList, PastMoment, Text

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
    return {"style": "form", "explode": False} if isinstance(field, IdentifierList) else {}

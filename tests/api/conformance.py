"""Holds answers to the OpenAPI document: each status, media type, header and body has to be in it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import orjson
from jsonschema_rs import Draft202012Validator

from server.api.openapi.document import openapi_document

_PLACE = re.compile(r"\\{\w+\\}")
# What a browser or a proxy asks, and what aiohttp says of itself.
_NOT_OF_THE_API = {"HEAD", "OPTIONS"}


@functools.cache
def document() -> dict[str, Any]:
    """The document, where an object has no other fields than those described: a field too many is a finding."""
    document: dict[str, Any] = orjson.loads(openapi_document())
    for schema in document["components"]["schemas"].values():
        schema.setdefault("additionalProperties", False)
    return document


def documented_responses(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """The template of a path, and what the document says of its answers by status; None for no documented route."""
    for pattern, template in _templates():
        operation = document()["paths"][template].get(method.lower())
        if operation is not None and pattern.fullmatch(path):
            return template, {status: _resolve(said) for status, said in operation["responses"].items()}
    return None


def check_answer(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Fail where an answer is not as documented; what is no route of the document is not looked at.

    Args:
        method: of the request.
        path: of the request, without its query.
        status: of the answer.
        headers: of the answer, in any case.
        body: of the answer, unpacked.
    """
    known = None if method in _NOT_OF_THE_API else documented_responses(method, path)
    if known is None:
        return
    template, responses = known
    place = f"{method} {template} {status}"
    assert str(status) in responses, f"{place}: not documented; {body[:500]!r}"
    response = responses[str(status)]
    given = {name.lower(): value for name, value in headers.items()}
    for name, reference in response["headers"].items():
        header = _resolve(reference)
        assert name.lower() in given or not header.get("required"), f"{place}: no {name}"
        if name.lower() in given:
            _check(f"{place} {name}", header["schema"], given[name.lower()])
    contents = response.get("content")
    if not contents:
        assert body == b"", f"{place}: a body"
        return
    media_type = given["content-type"].partition(";")[0]
    assert media_type in contents, f"{place}: {media_type}"
    is_json = media_type.endswith("json")
    schema = contents[media_type]["schema"]
    encoding = "latin-1" if schema.get("format") == "binary" else "utf-8"
    _check(place, schema, orjson.loads(body) if is_json else body.decode(encoding))


def _resolve(said: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in said:
        return said
    found: Any = document()
    for part in said["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    resolved: dict[str, Any] = found
    return resolved


def _check(place: str, schema: dict[str, Any], value: Any) -> None:
    problems = [
        f"{'.'.join(map(str, error.instance_path))}: {error.message}"
        for error in _validator(orjson.dumps(schema)).iter_errors(value)
    ]
    assert problems == [], f"{place}: {problems}"


@functools.cache
def _validator(schema: bytes) -> Draft202012Validator:
    whole = {**orjson.loads(schema), "components": document()["components"]}
    return Draft202012Validator(whole, validate_formats=True)


@functools.cache
def _templates() -> list[tuple[re.Pattern[str], str]]:
    """Paths as patterns; those without a place first, as the router has them."""
    templates = sorted(document()["paths"], key=lambda template: template.count("{"))
    return [(re.compile(_PLACE.sub("[^/]+", re.escape(template))), template) for template in templates]

"""Reading what a client sent: path ids, query parameters, JSON bodies. What is wrong is said with its field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import orjson
from aiohttp import web
from marshmallow import Schema, ValidationError

from server.errors import BodyTooLarge, InvalidInput, MalformedBody, UnsupportedMediaType

MAX_BODY_BYTES = 1 << 20
TIME_ZONE_HEADER = "X-Time-Zone"

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_TIME_ZONES = frozenset(available_timezones())


def path_id(request: web.Request, name: str) -> UUID:
    """The UUID in a place of the path.

    Raises:
        InvalidInput: it is none.
    """
    text = request.match_info[name]
    if _UUID.fullmatch(text) is None:
        raise InvalidInput(errors={name: "This is not a UUID."})
    return UUID(text)


def read_query(request: web.Request, schema: Schema) -> dict[str, Any]:
    """The query parameters, each at most once and none that the schema does not know.

    Raises:
        InvalidInput: with a message for each parameter that is wrong.
    """
    query = request.query
    repeated = {name: "Give this parameter once." for name in query if len(query.getall(name)) > 1}
    if repeated:
        raise InvalidInput(errors=repeated)
    return _load(schema, dict(query))


async def read_json(request: web.Request, schema: Schema) -> dict[str, Any]:
    """The JSON body, checked.

    Raises:
        UnsupportedMediaType: it does not claim to be JSON.
        BodyTooLarge: it is larger than 1 MiB.
        MalformedBody: it is not JSON.
        InvalidInput: with a message for each field that is wrong.
    """
    return _load(schema, await read_json_value(request))


async def read_json_value(request: web.Request) -> Any:
    """The JSON body as it came; raises as read_json does, but for InvalidInput."""
    if not _is_json(request.content_type):
        raise UnsupportedMediaType
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes.")
    body = await request.read()
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The body is not valid JSON: {error}.") from error


def time_zone_of(request: web.Request) -> ZoneInfo | None:
    """The zone of the X-Time-Zone header, an IANA name; None where there is none.

    Raises:
        InvalidInput: there is no such zone.
    """
    name = request.headers.get(TIME_ZONE_HEADER)
    if name is None:
        return None
    if name not in _TIME_ZONES:
        raise InvalidInput(errors={TIME_ZONE_HEADER: "This is not an IANA time zone such as Europe/Berlin."})
    return ZoneInfo(name)


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


def _load(schema: Schema, data: Any) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(data)
    except ValidationError as error:
        messages = error.normalized_messages()  # type: ignore[no-untyped-call]
        raise InvalidInput(errors=dict(_flatten(messages))) from error
    return loaded


def _flatten(messages: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Marshmallow's nested messages as dotted paths; what is wrong with the whole is the field `_schema`."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from _flatten(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, " ".join(str(message) for message in messages)

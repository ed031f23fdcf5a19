"""Reading what a client sent: path ids, query parameters, JSON bodies. What is wrong is said with its field."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from aiohttp import web
from marshmallow import Schema, ValidationError

from server.api.fields import CANONICAL_UUID, TimeZone
from server.errors import BodyTooLarge, InvalidInput, MalformedBody, MasteryError, UnsupportedMediaType

MAX_BODY_BYTES = 1 << 20
# What the field is called when the body as a whole is wrong.
BODY_FIELD = "body"
TIME_ZONE_HEADER = "X-Time-Zone"

_NO_PARAMETERS = Schema()
_TIME_ZONE = TimeZone()
# Why the body could not be read: a second look must not find the rest of it.
_BODY_FAILURE = web.RequestKey("body_failure", MasteryError)


def path_id(request: web.Request, name: str) -> UUID:
    """The UUID in a place of the path.

    Raises:
        InvalidInput: it is none.
    """
    identifier = _uuid_of(request.match_info[name])
    if identifier is None:
        raise InvalidInput(errors={name: "This is not a UUID."})
    return identifier


@functools.lru_cache(maxsize=10_000)  # the same few classes and decks, again and again
def _uuid_of(text: str) -> UUID | None:
    return UUID(text) if CANONICAL_UUID.fullmatch(text) else None


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


def refuse_query(request: web.Request) -> None:
    """For routes that take no query parameters: a client that sends one expects something of it.

    Raises:
        InvalidInput: there is one.
    """
    if request.query_string:
        read_query(request, _NO_PARAMETERS)


async def read_json(request: web.Request, schema: Schema) -> dict[str, Any]:
    """The JSON body, checked.

    Raises:
        BodyTooLarge: it is larger than 1 MiB.
        UnsupportedMediaType: it does not claim to be JSON.
        MalformedBody: it is not JSON.
        InvalidInput: with a message for each field that is wrong.
    """
    return _load(schema, await read_json_value(request))


async def read_json_value(request: web.Request) -> Any:
    """The JSON body as it came; raises as read_json does, but for InvalidInput."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise BodyTooLarge
    if not _is_json(request.content_type):
        raise UnsupportedMediaType
    body = await read_bytes(request)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(errors={BODY_FIELD: f"This is not valid JSON: {error}."}) from error


async def read_bytes(request: web.Request) -> bytes:
    """The whole body as it came; what went wrong once goes wrong again.

    Raises:
        BodyTooLarge: it is larger than 1 MiB.
        MalformedBody: it did not arrive whole.
    """
    failure = request.get(_BODY_FAILURE)
    if failure is None:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            failure = BodyTooLarge()
        except (
            web.RequestPayloadError,
            ConnectionError,
        ):  # bad chunks, bad compression, a client that hung up
            failure = MalformedBody(errors={BODY_FIELD: "It did not arrive whole."})
        request[_BODY_FAILURE] = failure
    raise failure


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """The body as it came, whatever it is; for routes with a limit of their own, in bytes. To be called once.

    Raises:
        BodyTooLarge: it is larger; no more of it than that is read.
        MalformedBody: it did not arrive whole.
    """
    too_large = BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > max_bytes:
                raise too_large
    except (web.RequestPayloadError, ConnectionError) as error:
        raise MalformedBody(errors={BODY_FIELD: "It did not arrive whole."}) from error
    return bytes(body)


def time_zone_of(request: web.Request) -> ZoneInfo | None:
    """The zone of the X-Time-Zone header, an IANA name; None where there is none.

    Raises:
        InvalidInput: there is no such zone.
    """
    name = request.headers.get(TIME_ZONE_HEADER)
    if name is None:
        return None
    try:
        return _TIME_ZONE.deserialize(name)
    except ValidationError as error:
        raise InvalidInput(errors={TIME_ZONE_HEADER: " ".join(map(str, error.messages))}) from error


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
    """Marshmallow's nested messages as dotted paths. Under `_schema` it tells what is wrong with the whole."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            place = [path, "" if key == "_schema" else str(key)]
            yield from _flatten(inner, ".".join(filter(None, place)))
    else:
        yield path or BODY_FIELD, " ".join(str(message) for message in messages)

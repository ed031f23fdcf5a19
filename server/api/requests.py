"""Reading what a client sent: path ids, query parameters, bodies as bytes and as JSON. Faults are named by field.

How much there is of something is judged first: no more of a body is read than a route accepts, inflated as it is read,
with a deadline; how many values it holds is judged before it is parsed, how many fields an object and how many elements
a list has before any of them is validated. So an answer costs about the same whatever is sent, and a body of 1 MiB
can't hold up the requests beside it.
"""

from __future__ import annotations

import asyncio
import codecs
import functools
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import orjson
from aiohttp import hdrs, web
from marshmallow import Schema, ValidationError, fields

from server.api.responses import MAX_ERRORS
from server.api.schemas import CANONICAL_UUID, IdentifierList
from server.api.services import services_of
from server.errors import (
    BodyTooLarge,
    ClientDisconnected,
    IncompleteBody,
    InvalidInput,
    MalformedBody,
    MasteryError,
    RequestTimeout,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
)

Result = TypeVar("Result")
MAX_BODY_BYTES = 1 << 20
# The texts of a card may hold 14,000 commas and brackets; no body that any route takes has more of these in all.
MAX_VALUES = 20_000
MAX_PARAMETERS = 100
# What the field is called when the body as a whole is wrong.
BODY_FIELD = "body"
QUERY_FIELD = "query"
_NO_PARAMETERS = Schema()
_UUID_CHARACTERS = 36
# The body, or why it could not be read: a second look must not find the rest of it.
_BODY: web.RequestKey[bytes | MasteryError] = web.RequestKey("body", object)  # type: ignore[arg-type]
# Whether the client sends its body only after an interim answer; False once it has got that.
EXPECTS_CONTINUE = web.RequestKey("expects_continue", bool)
_INFLATED_AT_ONCE = 256 << 10
# A body that moves, but hardly, has this many deadlines as a whole, and a second for each so many bytes.
_MOST_DEADLINES = 10
_SLOWEST_BYTES_PER_SECOND = 1024
_PLAIN = frozenset({"", "identity"})
_GZIP = frozenset({"gzip", "x-gzip"})
_ENCODINGS = _PLAIN | _GZIP | {"deflate"}


def path_id(request: web.Request, name: str) -> UUID:
    """The UUID in a place of the path.

    Raises:
        InvalidInput: it is none.
    """
    text = request.match_info[name]
    # Longer ones must not fill the memory of _uuid_of.
    identifier = _uuid_of(text) if len(text) == _UUID_CHARACTERS else None
    if identifier is None:
        raise InvalidInput(errors={name: "This is not a UUID."})
    return identifier


@functools.lru_cache(maxsize=10_000)  # the same few classes and decks, again and again
def _uuid_of(text: str) -> UUID | None:
    return UUID(text) if CANONICAL_UUID.fullmatch(text) else None


def read_query(request: web.Request, schema: Schema) -> dict[str, Any]:
    """The query parameters: none that the schema does not know, and each once, but for lists.

    The values of a list come in one parameter, separated by commas, or in several: clients write both.

    Raises:
        InvalidInput: with a message for each parameter that is wrong.
    """
    if request.query_string.count("&") >= MAX_PARAMETERS:
        raise InvalidInput(errors={QUERY_FIELD: f"Give at most {MAX_PARAMETERS} parameters."})
    query = request.query
    values = dict(query)
    if len(values) < len(query):
        repeated = {name: given for name in values if len(given := query.getall(name)) > 1}
        lists = _lists_of(schema)
        if not lists >= repeated.keys():
            raise InvalidInput(
                errors={name: "Give this parameter once." for name in repeated if name not in lists}
            )
        values.update({name: ",".join(given) for name, given in repeated.items()})
    return validate(schema, values)


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
    return validate(schema, await read_json_value(request))


async def read_json_value(request: web.Request) -> Any:
    """The JSON body as it came; raises as read_json does, but for InvalidInput."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise BodyTooLarge
    if not _is_json(request.content_type):
        raise UnsupportedMediaType
    return parse_json(await read_bytes(request))


def parse_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte order mark; how deep it may be, orjson says: 1024.

    Raises:
        InvalidInput: it holds more values than any route takes; they are counted in the bytes, before they are made.
        MalformedBody: it is not JSON.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise InvalidInput(errors={BODY_FIELD: f"It holds more than {MAX_VALUES} values."})
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(errors={BODY_FIELD: f"This is not valid JSON: {error}."}) from error


def validate(schema: Schema, value: Any) -> dict[str, Any]:
    """What a schema makes of a value.

    Args:
        schema: a module's constant: what it says about sizes is remembered.
        value: from JSON or a query.

    Raises:
        InvalidInput: with a message for each field that is wrong. Objects with more fields than their schema, and lists
            of a length that it does not accept, are refused before anything else is looked at.
    """
    _refuse_sizes(_sizes_of(schema), value, ())
    try:
        loaded: dict[str, Any] = schema.load(value)
    except ValidationError as error:
        messages = error.normalized_messages()  # type: ignore[no-untyped-call]
        raise InvalidInput(errors=dict(_flatten(messages))) from error
    return loaded


async def read_bytes(request: web.Request) -> bytes:
    """The whole body as it came; what went wrong once goes wrong again.

    Raises:
        MasteryError: as `read_content` does, beyond 1 MiB.
    """
    return await read_once(request, _BODY, lambda: read_content(request, MAX_BODY_BYTES))


async def read_once(
    request: web.Request, key: web.RequestKey[Result | MasteryError], read: Callable[[], Awaitable[Result]]
) -> Result:
    """What was read of a request before, or is read now; what went wrong once goes wrong again.

    Raises:
        MasteryError: as `read` does.
    """
    found = request.get(key)
    if found is None:
        try:
            found = await read()
        except MasteryError as failure:
            found = failure
        request[key] = found
    if isinstance(found, MasteryError):
        raise found
    return found


@functools.cache
def _lists_of(schema: Schema) -> frozenset[str]:
    """The names of the parameters that take several values."""
    return frozenset(
        field.data_key or name
        for name, field in schema.load_fields.items()
        if isinstance(field, IdentifierList)
    )


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How large what a schema takes may be: the names of an object's fields, and its lists with their elements."""

    names: frozenset[str]
    lists: Mapping[str, tuple[fields.List[Any], _Sizes | None]]


@functools.cache
def _sizes_of(schema: Schema) -> _Sizes:
    by_name = {field.data_key or name: field for name, field in schema.load_fields.items()}
    lists = {
        name: (field, _sizes_of(field.inner.schema) if isinstance(field.inner, fields.Nested) else None)
        for name, field in by_name.items()
        if isinstance(field, fields.List)
    }
    return _Sizes(frozenset(by_name), lists)


def _refuse_sizes(sizes: _Sizes, value: Any, path: tuple[object, ...]) -> None:
    if not isinstance(value, dict):
        return
    if len(value) > len(sizes.names):
        unknown = [name for name in value if name not in sizes.names]
        raise InvalidInput(
            errors={_dotted(*path, name): "Unknown field." for name in islice(unknown, MAX_ERRORS)},
            unlisted=max(0, len(unknown) - MAX_ERRORS),
        )
    for name, (field, element_sizes) in sizes.lists.items():
        elements = value.get(name)
        if not isinstance(elements, list):
            continue
        for validator in field.validators:
            try:
                validator(elements)
            except ValidationError as error:
                raise InvalidInput(
                    errors={_dotted(*path, name): " ".join(map(str, error.messages))}
                ) from error
        if element_sizes is not None:
            for number, element in enumerate(elements):
                _refuse_sizes(element_sizes, element, (*path, name, number))


def _dotted(*path: object) -> str:
    return ".".join(str(step) for step in path if step != "") or BODY_FIELD


def _flatten(messages: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Marshmallow's nested messages as dotted paths. `_schema` stands for what is wrong with the whole."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            place = [path, "" if key == "_schema" else str(key)]
            yield from _flatten(inner, ".".join(filter(None, place)))
    else:
        yield path or BODY_FIELD, " ".join(str(message) for message in messages)


async def read_content(request: web.Request, max_bytes: int) -> bytes:
    """The whole body, without its Content-Encoding. To be called once.

    Args:
        request: whose body it is.
        max_bytes: the most that is read, and the most that it may inflate to.

    Raises:
        BodyTooLarge: it is larger.
        UnsupportedContentEncoding: it is encoded in a way that we can't undo.
        IncompleteBody: it did not arrive whole, or is not what its encoding says.
        RequestTimeout: it did not move for the time that the settings give it.
        ClientDisconnected: the client hung up before its end.
    """
    encoding = _encoding_of(request)
    if (request.content_length or 0) > max_bytes:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    content = request.content
    if encoding not in _PLAIN or not content.is_eof() or content.exception() is not None:
        return await _read_pieces(request, encoding, max_bytes)
    body: bytes = content.read_nowait()  # the usual: all of it is here
    if len(body) > max_bytes:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    return body


async def _read_pieces(request: web.Request, encoding: str, max_bytes: int) -> bytes:
    """As read_content, of a body that is still on its way, or is encoded."""
    content = request.content
    await _ask_for_body(request)
    seconds = services_of(request).settings.request_body_timeout_ms / 1000.0
    latest = asyncio.get_running_loop().time() + _MOST_DEADLINES * seconds
    body = bytearray()
    arrived = 0
    inflater: _Inflater | None = None
    while not content.at_eof():
        piece = await _next_piece(request, seconds, latest + arrived / _SLOWEST_BYTES_PER_SECOND)
        arrived += len(piece)
        if encoding in _PLAIN:
            body += piece
        elif piece:
            inflater = inflater or _Inflater(encoding, piece)
            for inflated in inflater.feed(piece):
                body += inflated
                if len(body) > max_bytes:
                    break
                if len(inflated) == _INFLATED_AT_ONCE:
                    await asyncio.sleep(0)  # others have their turn
        if max(arrived, len(body)) > max_bytes:
            raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    if inflater is not None and not inflater.is_complete:
        raise IncompleteBody
    return bytes(body)


def _encoding_of(request: web.Request) -> str:
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding not in _ENCODINGS:
        raise UnsupportedContentEncoding
    return encoding


async def _ask_for_body(request: web.Request) -> None:
    """Where the client waits to be asked."""
    if request.get(EXPECTS_CONTINUE) and not request.content.is_eof():
        request[EXPECTS_CONTINUE] = False
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun


async def _next_piece(request: web.Request, seconds: float, latest: float) -> bytes:
    """What has arrived, or the next that does.

    Args:
        request: whose body it is.
        seconds: how long it may stand still.
        latest: when it has to be here as a whole, on the loop's clock.
    """
    content = request.content
    try:
        if content.is_eof():
            return content.read_nowait()
        async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + seconds, latest)):
            return await content.readany()
    except TimeoutError as error:
        content.feed_eof()  # nothing more is read of it, not even to drop it
        raise RequestTimeout from error
    except web.RequestPayloadError as error:
        raise IncompleteBody from error
    except (OSError, RuntimeError) as error:  # the latter: it was lost before we waited
        if request.transport is None:
            raise ClientDisconnected from error
        raise


class _Inflater:
    """Undoes gzip or deflate, piece by piece.

    Args:
        encoding: which of them.
        start: of the body: some clients send deflate without the frame that RFC 1950 wants.
    """

    def __init__(self, encoding: str, start: bytes) -> None:
        if encoding in _GZIP:
            window = 16 + zlib.MAX_WBITS
        else:
            has_frame = start[0] & 0x0F == zlib.DEFLATED
            window = zlib.MAX_WBITS if has_frame else -zlib.MAX_WBITS
        self._zlib = zlib.decompressobj(window)

    @property
    def is_complete(self) -> bool:
        """Whether the end has been seen."""
        return self._zlib.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What a piece inflates to, in pieces of a bounded size.

        Raises:
            IncompleteBody: it is not what the encoding says.
        """
        while piece:
            if self._zlib.eof:
                raise IncompleteBody("There is something after the end of the compressed body.")
            try:
                yield self._zlib.decompress(piece, _INFLATED_AT_ONCE)
            except zlib.error as error:
                raise IncompleteBody from error
            piece = self._zlib.unconsumed_tail or self._zlib.unused_data

"""How a handler writes: it says what to do in the transaction, and its answer is sent once that has happened.

    async def end_session(request):
        session_id = path_id(request, "sessionId")

        async def work(unit):
            return answer({"session": await sessions.end_session(unit, caller_of(request).user_id, session_id)})

        return await write(request, work)

Every write understands `Idempotency-Key`. Those of /api/auth and tokens for new passwords do not go through here: their
answers hold secrets, which must not lie in a table.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

import orjson
from aiohttp import hdrs, web

from server.api.requests import MAX_BODY_BYTES, read_bytes
from server.api.responses import JSON_LINE, NO_STORE_LINE
from server.api.services import caller_of, services_of
from server.api.whole_response import WholeResponse, header_line
from server.domain.writing import Answer, KeyedRequest, Unit, Work, answer_once
from server.errors import InvalidInput

IDEMPOTENCY_KEY = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"

# The draft asks for a structured string; most clients send the bare key. The field's value counts as it came.
_KEY = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)


def answer(payload: Any, *, status: int = 200, location: str | None = None) -> Answer:
    """An answer with a JSON body; `location` is the path of what was made."""
    return Answer(status=status, body=orjson.dumps(payload), location=location)


def no_content() -> Answer:
    """204: done, and nothing to say about it."""
    return Answer(status=204)


async def write(request: web.Request, work: Work, *, body: bytes | None = None) -> web.Response:
    """Do the work in one transaction, and answer with what it gives.

    Args:
        request: whose caller writes.
        work: gets the unit of work; may run twice, so all that it does is undone by a rollback.
        body: what the request's body was, where the handler has read it in another way than by read_json.

    Raises:
        InvalidInput: the Idempotency-Key is not usable.
        IdempotencyKeyReused: it belongs to another request.
        MasteryError: what the work raises; nothing has happened then, and the key stays free.
    """
    keyed = await keyed_request(request, body)

    async def once(unit: Unit) -> Answer:
        return await work(unit) if keyed is None else await answer_once(unit, keyed, work)

    caller, services = caller_of(request), services_of(request)
    given = await services.writer.run(once, user_id=caller.user_id)
    if caller.role == "admin":
        await services.replica_reads.note_change()
    return respond(given)


async def keyed_request(request: web.Request, body: bytes | None = None) -> KeyedRequest | None:
    """What makes a request a repeatable one; None without an Idempotency-Key. Arguments as `write`.

    Raises:
        InvalidInput: the key is not usable.
    """
    values = request.headers.getall(IDEMPOTENCY_KEY, ())
    if not values:
        return None
    if len(values) > 1 or _KEY.fullmatch(values[0]) is None:
        raise InvalidInput(
            errors={IDEMPOTENCY_KEY: "Must be one key of 1 to 255 printable ASCII characters."}
        )
    if body is None:
        body = await read_bytes(request)
    parts = (request.method.encode(), request.raw_path.encode(), _content_type(request).encode(), body)
    # Hashing a large file would block the event loop for too long.
    is_large = len(body) > MAX_BODY_BYTES
    fingerprint = await asyncio.to_thread(_digest, *parts) if is_large else _digest(*parts)
    return KeyedRequest(caller_of(request).user_id, values[0], fingerprint)


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _content_type(request: web.Request) -> str:
    """The media type, with the charset where the same bytes mean something else by it."""
    charset = (request.charset or "utf-8").lower()
    return (
        request.content_type if charset in {"utf-8", "utf8"} else f"{request.content_type};charset={charset}"
    )


def respond(given: Answer) -> WholeResponse:
    """The response of a write's answer."""
    lines = NO_STORE_LINE
    if given.location is not None:
        lines += header_line(hdrs.LOCATION, given.location)
    if given.is_replay:
        lines += header_line(REPLAYED, "true")
    if given.body is not None:
        lines += JSON_LINE
    return WholeResponse(given.body, status=given.status, lines=lines)

"""Writes that happen once, however often they are asked for: draft-ietf-httpapi-idempotency-key-header-07.

The key is taken by the first statement of the write's own transaction, and the answer is kept by its last one. So a key
has an answer exactly if its write has happened, whatever dies in between; and who asks for the same write meanwhile
waits at the key, gets the answer, or, if the first one fails, takes its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from server.domain.vanished import vanished_as_not_found
from server.domain.writing import Unit
from server.errors import MasteryError


class IdempotencyKeyReused(MasteryError):
    """This Idempotency-Key belongs to another request of the last 24 hours: take a new one for each new request."""

    status = 422
    code = "idempotency_key_reused"
    title = "Unprocessable Content"


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A write that its sender may repeat: whose it is, under which key, and the SHA-256 of what it asks for."""

    user_id: UUID
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a write answers: an HTTP status, a JSON body or none, and where to find what it has made."""

    status: int
    body: bytes | None = None
    location: str | None = None
    # Whether it was given before, and nothing was changed now.
    is_replay: bool = False


Work = Callable[[Unit], Awaitable[Answer]]


async def answer_once(unit: Unit, request: KeyedRequest, work: Work) -> Answer:
    """Do the work, unless it has been done under this key in the last 24 hours: then its answer of that time.

    Raises:
        IdempotencyKeyReused: the key was used for another request.
        AccountGone: the user no longer exists.
        MasteryError: what the work raises; the key stays free.
    """
    with vanished_as_not_found():
        row = await unit.transaction.fetch_one(
            "claim_idempotency_key", user_id=request.user_id, key=request.key, fingerprint=request.fingerprint
        )
    if row is None:
        raise RuntimeError("claim_idempotency_key gave no row")
    if row["fingerprint"] != request.fingerprint:
        raise IdempotencyKeyReused
    if row["status"] is not None:
        unit.stale.update(row["stale"])  # the first one may have died before it could say so
        return Answer(status=row["status"], body=row["body"], location=row["location"], is_replay=True)
    answer = await work(unit)
    await unit.transaction.execute(
        "keep_idempotent_answer",
        user_id=request.user_id,
        key=request.key,
        status=answer.status,
        location=answer.location,
        body=answer.body,
        stale=sorted(unit.stale),
    )
    return answer

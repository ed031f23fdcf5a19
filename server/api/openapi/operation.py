"""What a handler takes and answers, beyond what its route says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema

from server.api.answers.kinds import Answer
from server.api.responses import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A body: its media type, and its schema."""

    media_type: str = JSON
    schema: Schema | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What comes with a status: bodies, and headers beyond those of every response (names of HEADERS)."""

    description: str
    contents: tuple[Content, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A handler from outside.

    Args:
        results: by status; they go before the errors that the route implies.
        query: the parameters of the query.
        bodies: the request's body, in any of these media types.
        headers: the request's headers that mean something here (names of REQUEST_HEADERS).
        errors: statuses of problems that the route does not imply.
    """

    results: Mapping[int, Result]
    query: Schema | None = None
    bodies: tuple[Content, ...] = ()
    headers: tuple[str, ...] = ()
    errors: frozenset[int] = field(default_factory=frozenset)


def json(schema: Schema) -> tuple[Content, ...]:
    """A JSON body."""
    return (Content(schema=schema),)


def answers(answer: type[Answer], *, status: int = 200, headers: tuple[str, ...] = ()) -> dict[int, Result]:
    """An answer in JSON."""
    return {status: Result(description=_sentence(answer), contents=json(answer()), headers=headers)}


def tagged(answer: type[Answer], *, cached: bool = False) -> dict[int, Result]:
    """An answer with an entity tag; `cached`: the service asks its cache for it."""
    headers = ("ETag", "Vary", "X-Cache") if cached else ("ETag", "Vary")
    unchanged = Result(description="The body with the ETag of If-None-Match is still right.", headers=headers)
    return {**answers(answer, headers=headers), 304: unchanged}


def created(answer: type[Answer]) -> dict[int, Result]:
    """What a POST has made, and where it is from now on."""
    return answers(answer, status=201, headers=("Location",))


def done() -> dict[int, Result]:
    """Done, and nothing to say about it."""
    return {204: Result(description="Done.")}


def asset(*media_types: str) -> dict[int, Result]:
    """A file for everybody."""
    contents = tuple(
        Content(media_type=one, schema={"type": "object" if one == JSON else "string"}) for one in media_types
    )
    headers = ("ETag", "Vary")
    unchanged = Result(description="The file with the ETag of If-None-Match is still right.", headers=headers)
    return {200: Result(description="The file.", contents=contents, headers=headers), 304: unchanged}


def _sentence(answer: type[Answer]) -> str:
    return (answer.__doc__ or "").strip().partition("\n")[0]

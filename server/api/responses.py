"""JSON answers: success with an entity tag, and problems (RFC 9457)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
from aiohttp import hdrs, web

from server.api.whole_response import WholeResponse, header_line
from server.domain.study.reading import Page
from server.errors import TooManyUnread

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
JSON_LINE = header_line(hdrs.CONTENT_TYPE, JSON)
NO_STORE_LINE = header_line(hdrs.CACHE_CONTROL, "no-store")
# A 304 names what the 200 depends on (RFC 9110, section 15.4.5).
_TAGGED_LINES = header_line(hdrs.CACHE_CONTROL, "private, no-cache") + header_line(
    hdrs.VARY, f"{hdrs.AUTHORIZATION}, {hdrs.ACCEPT_ENCODING}"
)
# No answer to an error is larger, whatever was sent: what a client gets wrong must not cost more than what it sent.
MAX_PROBLEM_BYTES = 16_000
MAX_ERRORS = 20
# A larger answer is held in memory until its client has read it: the system takes no more at once.
LARGE_BYTES = 64 << 10
_LONGEST_FIELD = 100
_LONGEST_SENTENCE = 400
PROBLEM_LINES = NO_STORE_LINE + header_line(hdrs.CONTENT_TYPE, PROBLEM_JSON)


def json_response(
    payload: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> WholeResponse:
    """An answer that must not be stored: the result of a write, or the state of this moment."""
    return WholeResponse(
        orjson.dumps(payload), status=status, lines=f"{NO_STORE_LINE}{lines_of(headers)}{JSON_LINE}"
    )


def lines_of(headers: Mapping[str, str] | None) -> str:
    """Headers as the lines of a head."""
    return "".join([header_line(*header) for header in headers.items()]) if headers else ""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A body with its weak entity tag, and the lines of a head that name it."""

    body: bytes
    tag: str
    lines: str


def render(payload: Any) -> Rendering:
    """JSON, and a tag that is the same for the same bytes."""
    body = orjson.dumps(payload)
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    return Rendering(body, tag, _TAGGED_LINES + header_line(hdrs.ETAG, tag))


def tagged_response(request: web.Request, payload: Any) -> WholeResponse:
    """The answer to a read, for this reader's own cache: with a weak ETag; 304 where the reader has it already."""
    return _tagged(request, render(payload))


def page_response(request: web.Request, page: Page) -> WholeResponse:
    """The same for a page, which is rendered once."""
    rendering: Rendering | None = page.rendering
    if rendering is None:
        rendering = page.rendering = render(page.content)
    return _tagged(request, rendering)


def _tagged(request: web.Request, rendering: Rendering) -> WholeResponse:
    if is_known(request, rendering.tag):
        return WholeResponse(status=304, lines=rendering.lines)
    body = rendering.body
    if len(body) > LARGE_BYTES:
        refuse_without_room(request, len(body))
    return WholeResponse(body, lines=rendering.lines + JSON_LINE)


def refuse_without_room(request: web.Request, size_bytes: int) -> None:
    """For what is read: a large answer is made only where there is memory for it until its client has read it.

    Args:
        request: of a connection of ours; others have room for everything.
        size_bytes: of the answer.

    Raises:
        TooManyUnread: too much waits for its readers already.
    """
    has_room_for = getattr(request.protocol, "has_room_for", None)
    if has_room_for is not None and not has_room_for(size_bytes):
        raise TooManyUnread


def is_known(request: web.Request, tag: str) -> bool:
    """Whether the reader has the body with this entity tag already, and says so."""
    offered = request.headers.get(hdrs.IF_NONE_MATCH)
    if offered is None or offered == tag:
        return offered is not None
    return _matches(",".join(request.headers.getall(hdrs.IF_NONE_MATCH)), tag)


def _matches(if_none_match: str, tag: str) -> bool:
    """Weak comparison, RFC 9110, section 8.8.3.2: the W/ of either side does not count."""
    if if_none_match.strip() == "*":
        return True
    opaque = tag.removeprefix("W/")
    return any(entry.strip().removeprefix("W/") == opaque for entry in if_none_match.split(","))


def problem_response(
    *,
    status: int,
    title: str,
    detail: str,
    request_id: str,
    code: str,
    errors: Mapping[str, str] | None = None,
    unlisted: int = 0,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> WholeResponse:
    """An error as application/problem+json, in at most MAX_PROBLEM_BYTES.

    Args:
        status: of the answer.
        title: the status in words.
        detail: what is wrong, in a sentence.
        request_id: finds the request in the logs.
        code: the stable word to program against.
        errors: a message by field; the first MAX_ERRORS are listed, and `moreErrors` counts the others.
        unlisted: how many more there are beside `errors`.
        headers: beyond those of every error.
        extensions: further members, of bounded size.
    """
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": _cut(detail, _LONGEST_SENTENCE),
        "code": code,
        "requestId": request_id,
        **(extensions or {}),
    }
    body = _with_errors(problem, errors, unlisted) if errors else orjson.dumps(problem)
    return WholeResponse(body, status=status, lines=PROBLEM_LINES + lines_of(headers))


def _with_errors(problem: dict[str, Any], errors: Mapping[str, str], unlisted: int) -> bytes:
    listed = [
        {"field": _cut(field, _LONGEST_FIELD), "message": _cut(message, _LONGEST_SENTENCE)}
        for field, message in islice(errors.items(), MAX_ERRORS)
    ]
    total = len(errors) + unlisted
    detail = problem["detail"]
    while True:
        problem["errors"] = listed
        more = total - len(listed)
        if more:
            problem["moreErrors"] = more
            problem["detail"] = f"{detail} {more} more errors are not listed."
        body = orjson.dumps(problem)
        if len(body) <= MAX_PROBLEM_BYTES:
            return body
        # Characters that JSON writes as six bytes each.
        listed = listed[: len(listed) // 2]


def _cut(text: str, longest: int) -> str:
    """A text, or what fits of its beginning."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"

"""Every error becomes application/problem+json; nothing of a driver or a traceback reaches a client."""

from __future__ import annotations

import http
import math
from typing import Any

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from server.api.responses import problem_response
from server.errors import InvalidInput, MasteryError, ServiceUnavailable, Unauthenticated
from server.middleware.tracing import REQUEST_ID

log = structlog.get_logger(__name__)

_DETAILS = {
    404: "There is nothing at this path.",
    405: "This path does not know this method; see the Allow header.",
    413: "The body is larger than this route accepts.",
}


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into the answer that the contract promises."""
    try:
        return await handler(request)
    except MasteryError as error:
        return _answer(request, error)
    except web.HTTPException as error:
        if error.status < http.HTTPStatus.BAD_REQUEST:
            raise
        return _answer_http(request, error)
    except Exception:
        log.exception("http.unhandled_error")
        return _answer(
            request, MasteryError("Something went wrong on our side; the request id finds it in our logs.")
        )


def _answer(request: web.Request, error: MasteryError) -> web.Response:
    headers: dict[str, str] = {}
    problem: dict[str, Any] = {}
    if isinstance(error, Unauthenticated):
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if isinstance(error, ServiceUnavailable):
        headers[hdrs.RETRY_AFTER] = str(math.ceil(error.retry_after_seconds))
    if isinstance(error, InvalidInput):
        problem["errors"] = error.errors
    return problem_response(
        status=error.status,
        title=error.title,
        detail=error.detail,
        code=error.code,
        request_id=request[REQUEST_ID],
        headers=headers,
        **problem,
    )


def _answer_http(request: web.Request, error: web.HTTPException) -> web.Response:
    phrase = http.HTTPStatus(error.status).phrase
    headers: dict[str, str] = {}
    if hdrs.ALLOW in error.headers:
        headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return problem_response(
        status=error.status,
        title=phrase,
        detail=_DETAILS.get(error.status, f"{phrase}."),
        code=phrase.lower().replace(" ", "_"),
        request_id=request[REQUEST_ID],
        headers=headers,
    )

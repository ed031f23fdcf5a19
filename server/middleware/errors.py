"""Every error becomes application/problem+json; nothing of a driver or a traceback reaches a client."""

from __future__ import annotations

import http
import math
from typing import Any

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from server.api.answers.kinds import in_camel_case
from server.api.responses import problem_response
from server.api.services import services_of, state_of
from server.errors import (
    InvalidInput,
    MasteryError,
    ServiceUnavailable,
    Unauthenticated,
    UnsupportedContentEncoding,
)
from server.stores.postgres.database import ConstraintViolated, ValueRefused

log = structlog.get_logger(__name__)

# Columns that the API calls something else.
_FIELDS = {"sort_order": "order", "response_time_ms": "responseTime"}
_DETAILS = {
    404: "There is nothing at this path.",
    405: "This path does not know this method; see the Allow header.",
    413: "The body is larger than this route accepts.",
}


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The middleware that turns what a handler raises into a problem document."""
    try:
        return await handler(request)
    except MasteryError as error:
        if error.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            _log_failure(error)
        elif isinstance(error, (ValueRefused, ConstraintViolated)):
            error = _refuse_value(error)
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


def note_error_code(request: web.Request, code: str) -> None:
    """Count an error that is answered, and keep its code for the log line."""
    services_of(request).metrics.count_error(code)
    state_of(request).error_code = code


def _log_failure(error: MasteryError) -> None:
    """Log what the client is not shown. An unavailable part has a reason; anything else is our mistake."""
    if isinstance(error, ServiceUnavailable):
        log.warning("http.unavailable", reason=str(error))
    else:
        log.error("http.failed", exc_info=error)


def _refuse_value(error: ValueRefused | ConstraintViolated) -> MasteryError:
    """A value that only the database has refused is the client's mistake, and a hole in our validation."""
    if isinstance(error, ConstraintViolated):
        if not error.refuses_value:
            return error
        log.error(
            "validation.hole", constraint=error.constraint_name, column=error.column, sqlstate=error.sqlstate
        )
        field = None if error.column is None else _FIELDS.get(error.column, in_camel_case(error.column))
        return InvalidInput(
            ValueRefused().detail, errors=None if field is None else {field: "This can't be stored."}
        )
    log.error("validation.hole", query=error.query, sqlstate=error.sqlstate)
    return error


def _answer(request: web.Request, error: MasteryError) -> web.Response:
    note_error_code(request, error.code)
    headers: dict[str, str] = {}
    problem: dict[str, Any] = {}
    if isinstance(error, Unauthenticated):
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if isinstance(error, ServiceUnavailable):
        headers[hdrs.RETRY_AFTER] = str(math.ceil(error.retry_after_seconds))
    if isinstance(error, UnsupportedContentEncoding):
        headers[hdrs.ACCEPT_ENCODING] = "gzip, deflate"
    if isinstance(error, InvalidInput):
        problem["errors"], problem["unlisted"] = error.errors, error.unlisted
    response = problem_response(
        status=error.status,
        title=error.title,
        detail=error.detail,
        code=error.code,
        request_id=state_of(request).request_id,
        headers=headers,
        **problem,
    )
    if error.ends_connection:
        response.force_close()
    return response


def _answer_http(request: web.Request, error: web.HTTPException) -> web.Response:
    phrase = http.HTTPStatus(error.status).phrase
    code = phrase.lower().replace(" ", "_")
    note_error_code(request, code)
    headers: dict[str, str] = {}
    if hdrs.ALLOW in error.headers:
        headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return problem_response(
        status=error.status,
        title=phrase,
        detail=_DETAILS.get(error.status, f"{phrase}."),
        code=code,
        request_id=state_of(request).request_id,
        headers=headers,
    )

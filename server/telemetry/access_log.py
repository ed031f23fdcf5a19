"""The one line of each request, `http.request`: the most written line of all, so it takes the shortest way."""

from __future__ import annotations

import logging
from typing import Any, get_args

import structlog

from server.telemetry.log import LineHandler
from server.telemetry.log_lines import JsonLines
from server.telemetry.log_output import LineOutput
from server.telemetry.log_safety import safe_text
from server.telemetry.request_context import RequestContext
from server.telemetry.timings import Part, Timings

LOGGER = "server.access"
_GENERATED_ID_LENGTH = 36
_LONGEST_METHOD = 32
_LONGEST_ID = 200


class AccessLog:
    """Writes request lines as `configure_logging` has set logging up when this is made.

    With a JSON format, a line is rendered straight from its fields, whose values are known to be safe, and written with
    the others of the same turn of the event loop. With any other configuration it is an ordinary event.
    """

    def __init__(self) -> None:
        self._logger = structlog.get_logger(LOGGER)
        self._lines: JsonLines | None = None
        self._output: LineOutput | None = None
        root = logging.getLogger()
        for handler in root.handlers:
            if isinstance(handler, LineHandler) and isinstance(handler.render, JsonLines):
                self._lines, self._output = handler.render, handler.output
        self._is_shown = root.isEnabledFor(logging.INFO)

    def write(
        self,
        request: RequestContext,
        *,
        method: str,
        route: str,
        status: int,
        duration_ms: float,
        timings: Timings,
        client_ip: str,
        response_bytes: int,
        rate_limit: str,
        error_code: str | None = None,
    ) -> None:
        """Write the line of a request.

        Args:
            request: its ids, and its user where one is known.
            method: its method.
            route: its route template, never its path.
            status: of the answer; 499 for a client that went away. From 500 on the level is error.
            duration_ms: the total that the response headers named.
            timings: give `db_ms`, `cache_ms` and `limit_ms`, each where it happened, and with it the number of
                operations as `db_count`, `cache_count` and `limit_count`.
            client_ip: from where.
            response_bytes: the length of the answer's body.
            rate_limit: what the limiter said: allowed, denied or unlimited.
            error_code: the stable code of the problem that was answered, if it was one.
        """
        fields: dict[str, Any] = request.fields()
        request_id = request.request_id
        if (
            len(request_id) != _GENERATED_ID_LENGTH
        ):  # a client's own, which might be a secret in the wrong place
            fields["request_id"] = safe_text(request_id, _LONGEST_ID)
            fields["trace_id"] = safe_text(request.trace_id, _LONGEST_ID)
        fields["http.method"] = method[:_LONGEST_METHOD]
        fields["http.route"] = route
        fields["http.status"] = status
        fields["duration_ms"] = round(duration_ms, 2)
        counts = timings.counts
        for part, seconds in timings.seconds.items():
            milliseconds, count = _NAMES[part]
            fields[milliseconds] = round(seconds * 1000.0, 2)
            fields[count] = counts[part]
        fields["client_ip"] = client_ip
        fields["response_bytes"] = response_bytes
        fields["rate_limit"] = rate_limit
        if error_code is not None:
            fields["error_code"] = error_code
        is_error = status >= 500
        if self._lines is None or self._output is None:
            (self._logger.error if is_error else self._logger.info)("http.request", **fields)
        elif is_error or self._is_shown:
            level = "error" if is_error else "info"
            self._output.write_soon(self._lines.render_known(LOGGER, level, "http.request", fields))


_NAMES = {part: (f"{part}_ms", f"{part}_count") for part in get_args(Part)}

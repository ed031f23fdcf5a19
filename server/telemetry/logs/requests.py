"""The one line of each request, `http.request`: the most written line of all, so it takes the shortest way.

Renders the line of a request: JSON put together from pieces, as nothing in it needs escaping.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
import structlog

from server.bounded_dict import BoundedDict
from server.clock import now_text
from server.telemetry.context import RequestContext
from server.telemetry.logs.lines import ConsoleLines, JsonLines
from server.telemetry.logs.output import LineOutput
from server.telemetry.logs.safety import Clean, redact, safe_text
from server.telemetry.logs.setup import LineHandler
from server.telemetry.timings import Elapsed, Part

_MOST_KNOWN = 2000


class AccessLines:
    """What `JsonLines` would make of the same fields, byte for byte but for decimals, at a fifth of the cost.

    Texts are put in as they are: identifiers, addresses and words from the code. What comes from outside is escaped
    by its caller (`quoted`), or once and remembered, as methods and templates are.

    Args:
        lines: whose service it shares; of the shape `json`.
        logger: the `logger` of all lines.
    """

    def __init__(self, lines: JsonLines, logger: str) -> None:
        self._lines = lines
        self._logger = logger
        self._known: BoundedDict[tuple[str, str, int], tuple[str, str]] = BoundedDict(_MOST_KNOWN)

    def render(
        self,
        *,
        request_id: str,
        trace_id: str,
        user_id: str | None,
        method: str,
        route: str,
        status: int,
        elapsed: Elapsed,
        counts: Mapping[Part, int],
        client_ip: str,
        response_bytes: int,
        rate_limit: str,
        error_code: str | None,
    ) -> bytes:
        """The line, its line break included; the arguments are those of `AccessLog.write`."""
        head, about = self._known.get((method, route, status)) or self._pieces(method, route, status)
        user = "" if user_id is None else f'"user_id":"{user_id}",'
        parts = "".join(
            [
                f'"{part}_ms":{milliseconds},"{part}_count":{counts[part]},'
                for part, milliseconds in elapsed.parts.items()
            ]
        )
        code = "" if error_code is None else f',"error_code":"{error_code}"'
        return (
            f'{{"timestamp":"{now_text()}",{head}"request_id":"{request_id}","trace_id":"{trace_id}",{user}{about}'
            f'"duration_ms":{elapsed.total},{parts}"client_ip":"{client_ip}","response_bytes":{response_bytes},'
            f'"rate_limit":"{rate_limit}"{code}}}\n'
        ).encode()

    def _pieces(self, method: str, route: str, status: int) -> tuple[str, str]:
        """What is the same in all lines of a route and a status: before and after the request's own ids."""
        level = "error" if status >= 500 else "info"
        head = {"level": level, "message": "http.request", "logger": self._logger, **self._lines.service}
        about = {"http.method": method, "http.route": route, "http.status": status}
        pieces = (_members(head), _members(about))
        self._known[method, route, status] = pieces
        return pieces


def quoted(text: str) -> str:
    """A text as it stands between the quotation marks of JSON."""
    return orjson.dumps(text).decode()[1:-1]


def _members(fields: Mapping[str, object]) -> str:
    return orjson.dumps(fields).decode()[1:-1] + ","


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
        self._fast: AccessLines | None = None
        self.shows_paths = False  # only to people at a terminal: a path names who reads what
        self._clean: Clean = redact
        root = logging.getLogger()
        for handler in root.handlers:
            if isinstance(handler, LineHandler) and isinstance(handler.render, ConsoleLines):
                self.shows_paths = True
            if isinstance(handler, LineHandler) and isinstance(handler.render, JsonLines):
                self._lines, self._output = handler.render, handler.output
                self._clean = handler.render.clean
                self._fast = AccessLines(handler.render, LOGGER) if handler.render.shape == "json" else None
        self._is_shown = root.isEnabledFor(logging.INFO)

    def write(
        self,
        request: RequestContext,
        *,
        method: str,
        route: str,
        status: int,
        elapsed: Elapsed,
        counts: Mapping[Part, int],
        client_ip: str,
        response_bytes: int,
        rate_limit: str,
        error_code: str | None = None,
    ) -> None:
        """Write the line of a request.

        Args:
            request: its ids, and its user where one is known.
            method: its method.
            route: its route template; its path where `shows_paths` says so, and nowhere else.
            status: of the answer; 499 for a client that went away. From 500 on the level is error.
            elapsed: gives `duration_ms`, the total that the response headers named, and `db_ms`, `cache_ms` and
                `limit_ms`, each where it happened.
            counts: the number of operations of each part, as `db_count`, `cache_count` and `limit_count`.
            client_ip: from where, as it is to be shown.
            response_bytes: the length of the answer's body.
            rate_limit: what the limiter said: allowed, denied or unlimited.
            error_code: the stable code of the problem that was answered, if it was one.
        """
        is_error = status >= 500
        if self._output is not None and not is_error and not self._is_shown:
            return
        request_id, trace_id = request.request_id, request.trace_id
        is_own = len(request_id) != _GENERATED_ID_LENGTH  # a client's own: maybe a secret in the wrong place
        if is_own:
            request_id = safe_text(request_id, _LONGEST_ID, self._clean)
            trace_id = safe_text(trace_id, _LONGEST_ID, self._clean)
        method = method[:_LONGEST_METHOD]
        if self._fast is not None and self._output is not None:
            line = self._fast.render(
                request_id=quoted(request_id) if is_own else request_id,
                trace_id=quoted(trace_id) if is_own else trace_id,
                user_id=request.user_id,
                method=method,
                route=route,
                status=status,
                elapsed=elapsed,
                counts=counts,
                client_ip=client_ip,
                response_bytes=response_bytes,
                rate_limit=rate_limit,
                error_code=error_code,
            )
            self._output.write_soon(line)
            return
        fields: dict[str, Any] = {"request_id": request_id, "trace_id": trace_id}
        if request.user_id is not None:
            fields["user_id"] = request.user_id
        fields |= {"http.method": method, "http.route": route, "http.status": status}
        fields["duration_ms"] = float(elapsed.total)
        for part, milliseconds in elapsed.parts.items():
            fields[f"{part}_ms"] = float(milliseconds)
            fields[f"{part}_count"] = counts[part]
        fields |= {"client_ip": client_ip, "response_bytes": response_bytes, "rate_limit": rate_limit}
        if error_code is not None:
            fields["error_code"] = error_code
        if self._lines is None or self._output is None:
            (self._logger.error if is_error else self._logger.info)("http.request", **fields)
        else:
            level = "error" if is_error else "info"
            self._output.write_soon(self._lines.render_known(LOGGER, level, "http.request", fields))

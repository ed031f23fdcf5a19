"""The one line of each request, `http.request`.

It is the most written line of all, so it is put together from pieces of JSON: nearly nothing in it needs escaping.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import orjson
import structlog

from server.bounded_dict import BoundedDict
from server.clock import now_text
from server.telemetry.context import RequestLine, UserAgent
from server.telemetry.logs.lines import ConsoleLines, JsonLines
from server.telemetry.logs.output import LineOutput
from server.telemetry.logs.safety import Clean, redact, safe_text
from server.telemetry.logs.setup import LineHandler

LOGGER = "server.access"
_GENERATED_ID_LENGTH = 36
_LONGEST_METHOD = 32
_LONGEST_ID = 200
_MOST_KNOWN = 2000
_MOST_AGENTS = 1000
_LONGEST_AGENT = 200
# How far beyond the cut a secret may reach and still be recognised by its end.
_AGENT_LOOKED_AT = _LONGEST_AGENT + 512
# A product's version (RFC 9110, section 10.1.5), which may look like an address: Chrome/120.0.0.0.
_PRODUCT_VERSION = re.compile(r"(/[0-9][0-9.]*)")


class AccessLines:
    """Renders a request's line as `JsonLines` would, byte for byte except for decimals, at a fifth of the cost.

    Texts are put in as they are: identifiers, addresses and words from the code. What comes from outside is escaped
    by its caller (`quoted`), or once and remembered, as methods and templates are.

    Args:
        lines: whose service it shares; of the shape `json`.
        logger: the `logger` of all lines.
    """

    def __init__(self, lines: JsonLines, logger: str) -> None:
        self._lines = lines
        self._logger = logger
        self._known: BoundedDict[tuple[str, str, int, str], tuple[str, str]] = BoundedDict(_MOST_KNOWN)

    def render(self, line: RequestLine, request_id: str) -> bytes:
        """The line, its line break included. Args: request_id: as it stands between quotation marks."""
        (
            context, method, route, status, elapsed, timings, client_ip, size, rate_limit, error_code, version, agent,
        ) = line  # fmt: skip
        key = (method, route, status, version)
        head, about = self._known.get(key) or self._pieces(key)
        user = "" if context.user_id is None else f'"user_id":"{context.user_id}",'
        counts = timings.counts
        parts = ""
        for part, milliseconds in elapsed.parts.items():
            parts += f'"{part}_ms":{milliseconds},"{part}_count":{counts[part]},'
        named = "" if agent is None else f',"user_agent":"{agent.quoted}"'
        code = "" if error_code is None else f',"error_code":"{error_code}"'
        return (
            f'{{"timestamp":"{now_text()}",{head}"request_id":"{request_id}","trace_id":"{context.trace_id}",{user}{about}'
            f'"duration_ms":{elapsed.total},{parts}"client_ip":"{client_ip}","response_bytes":{size},'
            f'"rate_limit":"{rate_limit}"{code}{named}}}\n'
        ).encode()

    def _pieces(self, key: tuple[str, str, int, str]) -> tuple[str, str]:
        """The pieces that all lines of a route and a status share: before and after the request's own ids."""
        method, route, status, version = key
        level = "error" if status >= 500 else "info"
        head = {"level": level, "message": "http.request", "logger": self._logger, **self._lines.service}
        about = {
            "http.method": method[:_LONGEST_METHOD],
            "http.route": route,
            "http.status": status,
            "http.version": version,
        }
        pieces = (_members(head), _members(about))
        self._known[key] = pieces
        return pieces


def quoted(text: str) -> str:
    """A text as it stands between the quotation marks of JSON."""
    return orjson.dumps(text).decode()[1:-1]


def _members(fields: Mapping[str, object]) -> str:
    return orjson.dumps(fields).decode()[1:-1] + ","


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
        self.shows_paths = False  # only on a terminal: paths hold the ids of users and decks
        self._clean: Clean = redact
        self._agents: BoundedDict[str, UserAgent] = BoundedDict(_MOST_AGENTS)
        root = logging.getLogger()
        for handler in root.handlers:
            if isinstance(handler, LineHandler) and isinstance(handler.render, ConsoleLines):
                self.shows_paths = True
            if isinstance(handler, LineHandler) and isinstance(handler.render, JsonLines):
                self._lines, self._output = handler.render, handler.output
                self._clean = handler.render.clean
                self._fast = AccessLines(handler.render, LOGGER) if handler.render.shape == "json" else None
        self._is_shown = root.isEnabledFor(logging.INFO)
        self._shows_errors = root.isEnabledFor(logging.ERROR)

    def user_agent(self, header: str | None) -> UserAgent | None:
        """What a client calls itself, as it is to be shown; remembered, because the same ones come again and again."""
        if not header:
            return None
        header = header[:_AGENT_LOOKED_AT]  # the same object, if it is not longer
        return self._agents.get(header) or self._new_agent(header)

    def write(self, line: RequestLine) -> None:
        """Write the line of a request; from status 500 on its level is error."""
        is_error = line.status >= 500
        if self._output is not None and not (self._shows_errors if is_error else self._is_shown):
            return
        request_id = line.context.request_id
        is_own = len(request_id) != _GENERATED_ID_LENGTH  # a client's own: maybe a secret in the wrong place
        if is_own:
            request_id = safe_text(request_id, _LONGEST_ID, self._clean)
        if self._fast is not None and self._output is not None:
            self._output.write_soon(self._fast.render(line, quoted(request_id) if is_own else request_id))
            return
        fields = _fields(line, request_id)
        if self._lines is None or self._output is None:
            (self._logger.error if is_error else self._logger.info)("http.request", **fields)
        else:
            level = "error" if is_error else "info"
            self._output.write_soon(self._lines.render_known(LOGGER, level, "http.request", fields))

    def _new_agent(self, header: str) -> UserAgent:
        has_secret = redact(header) != header
        pieces = [header] if has_secret else _PRODUCT_VERSION.split(header)
        text = "".join(piece if at % 2 else self._clean(piece) for at, piece in enumerate(pieces))
        if not (text.isascii() and text.isprintable()):
            text = text.encode("unicode_escape").decode()
        text = text[:_LONGEST_AGENT]
        agent = self._agents[header] = UserAgent(text, quoted(text))
        return agent


def _fields(line: RequestLine, request_id: str) -> dict[str, Any]:
    """The same as fields of an event, in the same order."""
    fields: dict[str, Any] = {"request_id": request_id, "trace_id": line.context.trace_id}
    if line.context.user_id is not None:
        fields["user_id"] = line.context.user_id
    fields |= {
        "http.method": line.method[:_LONGEST_METHOD],
        "http.route": line.route,
        "http.status": line.status,
        "http.version": line.http_version,
        "duration_ms": float(line.elapsed.total),
    }
    for part, milliseconds in line.elapsed.parts.items():
        fields[f"{part}_ms"] = float(milliseconds)
        fields[f"{part}_count"] = line.timings.counts[part]
    fields |= {
        "client_ip": line.client_ip,
        "response_bytes": line.response_bytes,
        "rate_limit": line.rate_limit,
    }
    if line.error_code is not None:
        fields["error_code"] = line.error_code
    if line.user_agent is not None:
        fields["user_agent"] = line.user_agent.text
    return fields

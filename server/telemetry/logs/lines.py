"""Renders one log event as one line of a bounded length, whatever the event holds: JSON, or text for a terminal."""

from __future__ import annotations

import os
import re
import socket
import sys
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import structlog

from server.clock import now_text
from server.telemetry.logs.safety import Clean, Converter, Limits, redact, safe_stack, safe_text
from server.telemetry.logs.shapes import Line, Shape, reshaping

# Heroku's router and Docker's log drivers cut longer lines, and half a line is not JSON.
MAX_LINE_BYTES = 9_999
# The first that fits is taken. The last one always fits: four pairs of texts whose every character takes 6
# bytes.
_LIMITS = (
    Limits(characters=2000, items=60, depth=6, stack=4500),
    Limits(characters=600, items=30, depth=4, stack=2500),
    Limits(characters=250, items=30, depth=4, stack=1800),
    Limits(characters=120, items=15, depth=2, stack=600),
    Limits(characters=60, items=4, depth=0, stack=60),
)
_REQUEST_HEAD = ("http.method", "http.route", "http.status", "duration_ms")
_LONGEST_HEAD = 300
_CONSOLE_LIMITS = Limits(characters=10_000, items=200, depth=8, stack=100_000)
# What JSON allows in a text, yet a terminal obeys or a line splitter splits at: DEL and the C1 controls, the
# line and paragraph separators, the marks that reverse the direction of writing; in UTF-8.
_UNPRINTABLE = re.compile(b"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
_LEVELS = {"warn": "warning", "fatal": "critical", "exception": "error", "notset": "info"}
_CONSUMED = frozenset({"event", "logger", "exc_info"})
_EXACT = 2**53
_CORE = frozenset({"timestamp", "level", "message", "logger", "service", "env", "version", "instance", "pid"})
# The fields that identify a request, and those of its own line: no secrets, and no names that collide.
_ACCESS_FIELDS = frozenset({
    "request_id", "trace_id", "http.method", "http.route", "http.status", "duration_ms", "db_ms", "cache_ms",
    "limit_ms", "db_count", "cache_count", "limit_count", "user_id", "client_ip", "response_bytes", "rate_limit",
    "http.version", "user_agent",
})  # fmt: skip


class JsonLines:
    """The last processor of the chain: event dictionary in, line out, its line break included. Never raises.

    Args:
        shape: which pipeline's names the fields have.
        service: what the service is called.
        env: where it runs, such as `production`.
        version: what is running there.
        longest_bytes: of a line; at least 4096.
        clean: what cleans texts, those of exceptions included.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        service: str,
        env: str,
        version: str,
        longest_bytes: int = MAX_LINE_BYTES,
        clean: Clean = redact,
    ) -> None:
        self._longest_bytes = longest_bytes
        self.clean = clean
        self._reshape = reshaping(shape)
        self.shape = shape
        named = {"service": service, "env": env, "version": version, "instance": instance_name()}
        self.service: Line = {name: safe_text(value, 100) for name, value in named.items()}
        self.note_process()

    def note_process(self) -> None:
        """Name this process from now on: to be called after a fork."""
        self.service["pid"] = os.getpid()

    def __call__(self, logger: object, method: str, event: Mapping[str, Any]) -> bytes:
        """Render an event; `logger` gives the `logger` field by its `name`, `method` the level."""
        level = _LEVELS.get(method, method)
        name = event.get("logger") or getattr(logger, "name", None) or "root"
        for limits in _LIMITS:
            try:
                line = self._render(name, level, event, limits)
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the event must not be lost
                line = self._render(
                    "log", level, {"event": _event_name(event), "log.failure": repr(error)}, _LIMITS[-1]
                )
            if len(line) <= self._longest_bytes:
                return line
        return self._render(name, level, {"event": _event_name(event), "log.truncated": True}, _LIMITS[-1])

    def render_known(self, logger: str, level: str, message: str, fields: Mapping[str, Any]) -> bytes:
        """The line of an event whose fields are known to be short, safe and free of secrets: no value is inspected."""
        line: Line = {
            "timestamp": now_text(),
            "level": level,
            "message": message,
            "logger": logger,
            **self.service,
            **fields,
        }
        if self._reshape is not None:
            line = self._reshape(line)
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def _render(self, logger: str, level: str, event: Mapping[str, Any], limits: Limits) -> bytes:
        line: Line = {
            "timestamp": now_text(),
            "level": level,
            "message": safe_text(str(event.get("event", "")), limits.characters, self.clean),
            "logger": safe_text(str(logger), 100),
            **self.service,
        }
        converter = Converter(limits, self.clean)
        others = 0
        for key, value in event.items():
            if key in _ACCESS_FIELDS:
                kind = type(value)
                if kind is str:
                    line[key] = safe_text(value, limits.characters, self.clean)
                    continue
                if (kind is int or kind is float) and -_EXACT < value < _EXACT:
                    line[key] = value
                    continue
            if key not in _CONSUMED:
                others += 1
                if others > limits.items:
                    line["log.truncated"] = True
                    break
                line |= self._field(key, value, converter)
        failure = _failure_of(event.get("exc_info"))
        if failure is not None:
            line |= self._failure(failure, limits)
        if self._reshape is not None:
            line = self._reshape(line)
        encoded = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if len(encoded) > self._longest_bytes or (encoded.isascii() and b"\x7f" not in encoded):
            return encoded
        return _UNPRINTABLE.sub(_escape, encoded)

    def _field(self, key: object, value: object, converter: Converter) -> dict[str, Any]:
        if key == "error" and isinstance(value, BaseException):
            return {
                "error.type": _type_of(value),
                "error.message": _message_of(value, converter.limits, self.clean),
            }
        name, shown = converter.pair(key, value)
        if name == "error":  # a pipeline that knows `error.type` can't take a text as `error`
            name = "error.message"
        elif name in _CORE:
            name += "_"
        return {name: shown}

    def _failure(self, error: BaseException, limits: Limits) -> dict[str, Any]:
        return {
            "error.type": _type_of(error),
            "error.message": _message_of(error, limits, self.clean),
            "error.stack": _stack_of(error, limits, self.clean),
        }


class ConsoleLines:
    """The last processor for people: structlog's console renderer, without secrets.

    A request's line begins with what one looks for: method, path, status and duration.
    """

    def __init__(self, *, colors: bool, clean: Clean = redact) -> None:
        self._clean = clean
        self._render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=28)

    def __call__(self, logger: Any, method: str, event: Mapping[str, Any]) -> bytes:
        """Render an event as one line of text, and its exception as a traceback below it."""
        level = _LEVELS.get(method, method)
        failure = _failure_of(event.get("exc_info"))
        text, consumed = str(event.get("event", "")), _CONSUMED
        verb, path, status, duration = (event.get(name) for name in _REQUEST_HEAD)
        if text == "http.request" and isinstance(path, str) and isinstance(duration, float):
            text = f"{verb} {safe_text(path, _LONGEST_HEAD, self._clean)} {status} {duration:.2f} ms"
            consumed = _CONSUMED.union(_REQUEST_HEAD)
        shown = {
            "timestamp": datetime.now().astimezone().isoformat(sep=" ", timespec="milliseconds")[:-6],
            "level": level,
            "logger": event.get("logger") or getattr(logger, "name", "root"),
            "event": _printable(safe_text(text, _CONSOLE_LIMITS.characters, self._clean)),
        }
        converter = Converter(_CONSOLE_LIMITS, self._clean)
        for key, value in event.items():
            if key not in consumed:
                name, safe = converter.pair(key, value)
                shown[f"{name}_" if name in shown else name] = safe
        if failure is not None:
            shown["exception"] = _stack_of(failure, _CONSOLE_LIMITS, self._clean)
        return f"{self._render(logger, level, shown)}\n".encode()


def instance_name() -> str:
    """What the platform calls this copy of the service: Heroku's `web.1`, else the name of the host or container."""
    return os.environ.get("DYNO", "").strip() or socket.gethostname()


def _printable(text: str) -> str:
    """The text without line breaks and control characters, which would forge lines."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _type_of(error: BaseException) -> str:
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return safe_text(f"{module}{kind.__qualname__}", 120)


def _stack_of(error: BaseException, limits: Limits, clean: Clean) -> str:
    return safe_stack("".join(traceback.format_exception(error)), limits.stack, clean)


def _message_of(error: BaseException, limits: Limits, clean: Clean) -> str:
    try:
        return safe_text(str(error), limits.characters, clean)
    except Exception:  # noqa: BLE001 - an exception whose text fails is still an exception to report
        return "<no message: its __str__ failed>"


def _failure_of(exc_info: object) -> BaseException | None:
    """The exception that `exc_info` means: itself, a tuple's second, or the one that is being handled."""
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as error, _):
            return error
        case None | False | tuple():
            return None
        case _:
            return sys.exception()


def _event_name(event: Mapping[str, Any]) -> str:
    name = event.get("event")
    return name if type(name) is str else "log.unrepresentable_event"


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match.group().decode())

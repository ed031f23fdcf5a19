"""Structured logging: our own events and every library's records, in one shape on standard output.

`configure_logging` is called once per process, before the first event. All other code does

    log = structlog.get_logger(__name__)
    log.warning("redis.connection_lost", error="refused")

with a stable dotted event name and values as keywords. `docs/logging.md` lists the fields.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, get_args

import structlog
from structlog.contextvars import get_contextvars
from structlog.processors import StackInfoRenderer
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_logger_name
from structlog.typing import EventDict, Processor

from server.net import ShownAddresses
from server.telemetry.context import current_request
from server.telemetry.logs.lines import MAX_LINE_BYTES, ConsoleLines, JsonLines
from server.telemetry.logs.output import LineOutput
from server.telemetry.logs.safety import Clean, redact
from server.telemetry.logs.shapes import LogFormat

Level = Literal["debug", "info", "warning", "error", "critical"]

log = structlog.get_logger(__name__)


def configure_logging(
    *,
    level: str,
    format: str | None,  # noqa: A002 - the setting is called LOG_FORMAT
    env: str,
    version: str,
    service: str = "mastery",
    descriptor: int = 1,
    addresses: ShownAddresses | None = None,
) -> None:
    """Send every event and record of this process to a file descriptor, one line each.

    May be called again, as a worker process does after its master: the last call holds, also for loggers in
    use.

    Args:
        level: the least severe level to be written: debug, info, warning, error or critical, in any case.
        format: `json`, `ecs`, `gcp`, `otel` or `datadog` for one line of JSON an event with that pipeline's names;
            `console` for people; None for `console` where the descriptor is a terminal, `json` elsewhere.
        service: the `service` field.
        env: the `env` field, such as `production`.
        version: the `version` field.
        descriptor: where to write; standard output by default.
        addresses: what shows clients' addresses; None for the whole of them.

    Raises:
        ValueError: an unknown level or format.
    """
    threshold = level.lower()
    if threshold not in get_args(Level):
        raise ValueError(f"unknown log level {level!r}: one of {', '.join(get_args(Level))}")
    is_terminal = os.isatty(descriptor)
    if format is None:
        format = "console" if is_terminal else "json"  # noqa: A001 - see above
    if format not in get_args(LogFormat):
        raise ValueError(f"unknown log format {format!r}: one of {', '.join(get_args(LogFormat))}")

    output = _output(descriptor)
    context: list[Processor] = [_context_first]
    clean: Clean = redact
    if addresses is not None:
        context.append(addresses.in_event)
        clean = partial(_redact_and_show, addresses)
    render: Processor
    if format == "console":
        render = ConsoleLines(colors=is_terminal, clean=clean)
    else:
        render = JsonLines(
            format,  # type: ignore[arg-type]
            service=service,
            env=env,
            version=version,
            longest_bytes=min(MAX_LINE_BYTES, output.whole_bytes),
            clean=clean,
        )
    output.describe_loss = lambda count: _rendered(
        render, "warning", {"event": "log.lines_dropped", "count": count}
    )
    structlog.configure(
        processors=[*context, StackInfoRenderer(), render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=partial(LineLogger, output),
        cache_logger_on_first_use=False,  # or a second call would not reach the loggers that are in use
    )
    _take_over_records(threshold.upper(), LineHandler(output, render, context))
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def handle_loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An event loop's exception handler: `loop.set_exception_handler(handle_loop_exception)`."""
    del loop
    error = context.get("exception")
    task = context.get("task") or context.get("future")
    log.error("loop.uncaught_exception", detail=context.get("message"), task=repr(task), exc_info=error)


class LineLogger:
    """The logger below structlog's: hands rendered lines to the output."""

    __slots__ = ("critical", "debug", "error", "info", "name", "warning")

    def __init__(self, output: LineOutput, name: str = "root") -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = output.write


class LineHandler(logging.Handler):
    """Gives the standard library's records the shape of our own events."""

    def __init__(self, output: LineOutput, render: Processor, context: Sequence[Processor]) -> None:
        super().__init__()
        self.output = output
        self.render = render
        self.setFormatter(
            ProcessorFormatter(
                foreign_pre_chain=[add_logger_name, ExtraAdder(), *context],
                processors=[ProcessorFormatter.remove_processors_meta, render, _as_text],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; one that can't be formatted is written with its arguments beside it."""
        try:
            line = self.format(record).encode()
        except Exception:  # noqa: BLE001 - wrong arguments in a library's logging call
            event = {
                "event": record.msg,
                "logger": record.name,
                "args": record.args,
                "exc_info": record.exc_info,
            }
            line = _rendered(self.render, record.levelname.lower(), event)
        self.output.write(line)


def _output(descriptor: int) -> LineOutput:
    """The output that an earlier call has opened for the same descriptor, with its backlog; else a new one."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler) and handler.output.descriptor == descriptor:
            return handler.output
    output = LineOutput(descriptor)
    atexit.register(output.flush)
    return output


def _take_over_records(level: str, handler: LineHandler) -> None:
    root = logging.getLogger()
    for former in [
        former for former in root.handlers if isinstance(former, LineHandler | logging.StreamHandler)
    ]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=True)


def _context_first(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The request's ids and the bound variables before the event's own fields, so that they are cut last."""
    request = current_request.get()
    if request is None:
        return {**get_contextvars(), **event}
    return {**request.fields(), **get_contextvars(), **event}


def _redact_and_show(addresses: ShownAddresses, text: str) -> str:
    return addresses.in_text(redact(text))


def _name_this_process() -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler) and isinstance(handler.render, JsonLines):
            handler.render.note_process()


# A worker of the web server logs its first lines by what its master has set up.
os.register_at_fork(after_in_child=_name_this_process)


def _rendered(render: Processor, level: str, event: EventDict) -> bytes:
    return bytes(render(None, level, event))  # type: ignore[arg-type]  # our renderers return bytes


def _as_text(_logger: object, _method: str, line: Any) -> str:
    text: str = line.decode()
    return text


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("process.uncaught_exception", exc_info=error)


def _log_uncaught_in_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
        name = failure.thread.name if failure.thread is not None else None
        log.critical("thread.uncaught_exception", thread=name, exc_info=failure.exc_value)


def _log_unraisable(failure: sys.UnraisableHookArgs) -> None:
    log.error("process.unraisable_exception", detail=failure.err_msg, exc_info=failure.exc_value)

"""What `configure_logging` makes of our own events, of libraries' records, and of exceptions that nobody caught."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import orjson
import pytest
import structlog

from server.telemetry.context import RequestContext, RequestLine, current_request
from server.telemetry.logs.requests import AccessLog
from server.telemetry.logs.setup import configure_logging, handle_loop_exception
from server.telemetry.timings import Elapsed, Timings
from tests.telemetry.conftest import Lines

log = structlog.get_logger("tests.own")


def test_own_events_and_records_look_alike(logged: Lines) -> None:
    """An event and a library's record have the same fields, the request's context among them."""
    structlog.contextvars.bind_contextvars(request_id="req_1", trace_id="t_1")
    log.warning("own.event", number=1)
    logging.getLogger("psycopg2").warning("foreign %s", "record", extra={"number": 1})
    own, foreign = logged()
    assert ("own.event", "tests.own") == (own.pop("message"), own.pop("logger"))
    assert ("foreign record", "psycopg2") == (foreign.pop("message"), foreign.pop("logger"))
    del own["timestamp"], foreign["timestamp"]
    assert own == foreign
    assert {"level": "warning", "request_id": "req_1", "trace_id": "t_1", "number": 1}.items() <= own.items()


def test_the_context_comes_first(logged: Lines) -> None:
    """What identifies a request precedes the event's own fields, of which a long line drops some."""
    structlog.contextvars.bind_contextvars(request_id="req_1")
    log.info("x", **{f"field_{number}": "y" * 2000 for number in range(100)})
    (line,) = logged()
    assert "req_1" == line["request_id"]
    assert line["log.truncated"] is True


def test_records_with_exceptions(logged: Lines) -> None:
    """A library's exception is told in the same fields as ours."""
    try:
        os.stat("/no such file")  # noqa: PTH116 - any failure will do
    except FileNotFoundError:
        logging.getLogger("aiohttp.server").exception("Error handling request")
        log.exception("own.failure")
    foreign, own = logged()
    assert ("FileNotFoundError", "error") == (foreign["error.type"], foreign["level"])
    assert own["error.message"] == foreign["error.message"]
    assert own["error.stack"] == foreign["error.stack"]


def test_warnings_are_records(logged: Lines) -> None:
    """A Python warning becomes a line, not text on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old\nhabits", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    (line,) = logged()
    assert ("py.warnings", "warning") == (line["logger"], line["level"])
    assert "DeprecationWarning: old\nhabits" in line["message"]


def test_less_severe_events_are_dropped(logged: Lines) -> None:
    """Below the level nothing is written, of ours or of anybody's."""
    log.debug("own.detail")
    logging.getLogger("x").debug("detail")
    log.info("own.event")
    assert ["own.event"] == [line["message"] for line in logged()]


def test_the_last_call_holds(logged: Lines, tmp_path: Path) -> None:
    """A second call reaches loggers that are in use, and no line is written twice."""
    log.info("before")
    with (tmp_path / "second").open("w+b") as second:
        configure_logging(
            level="ERROR", format="gcp", service="s", env="e", version="v", descriptor=second.fileno()
        )
        log.info("too little")
        log.error("after")
        logging.getLogger("x").error("after")
        second.seek(0)
        lines = [orjson.loads(line) for line in second]
    assert ["before"] == [line["message"] for line in logged()]
    assert [("ERROR", "tests.own"), ("ERROR", "x")] == [(line["severity"], line["logger"]) for line in lines]


@pytest.mark.parametrize(("level", "form"), [("loud", "json"), ("info", "yaml")])
def test_unknown_settings_are_refused(level: str, form: str) -> None:
    """An unknown level or format is an error, which says what there is."""
    with pytest.raises(ValueError, match="one of"):
        configure_logging(level=level, format=form, service="s", env="e", version="v")


def test_the_access_line(logged: Lines) -> None:
    """One line a request has its route, status and time by part; failures of ours are errors."""
    timings = Timings()
    for part in ("db", "limit", "db"):
        timings.begin(part)
        timings.end(part)
    request = RequestContext("req_1", "t_1")
    request.user_id = "u"
    access_log = AccessLog()
    elapsed = Elapsed(12.3456, "12.35", timings.read().parts)
    line = RequestLine(request, "GET", "/a/{id}", 200, elapsed, timings, "::1", 5, "allowed")
    access_log.write(line)
    request.user_id = None
    access_log.write(line._replace(status=503, elapsed=Elapsed(1, "1.00", {}), error_code="x"))
    good, bad = logged()
    assert ("http.request", "server.access", "info") == (good["message"], good["logger"], good["level"])
    assert {
        "http.method": "GET", "http.route": "/a/{id}", "http.status": 200, "duration_ms": 12.35, "user_id": "u",
        "client_ip": "::1", "db_count": 2, "limit_count": 1,
    }.items() <= good.items()  # fmt: skip
    assert {"db_ms", "limit_ms"} <= set(good)
    assert not {"cache_ms", "cache_count"} & set(good)
    assert ("error", "x") == (bad["level"], bad["error_code"])
    assert "user_id" not in bad


@pytest.mark.usefixtures("logged")
async def test_exceptions_of_the_loop(logged: Lines) -> None:
    """What a callback raises, which nobody can catch, is a line with its stack."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handle_loop_exception)
    loop.call_soon(int, "x")
    await asyncio.sleep(0)
    (line,) = logged()
    assert ("loop.uncaught_exception", "ValueError") == (line["message"], line["error.type"])
    assert "error.stack" in line


def test_exceptions_of_a_thread(logged: Lines) -> None:
    """A thread that dies of an exception says so."""
    thread = threading.Thread(target=int, args=("x",), name="worker-1")
    hook = threading.excepthook
    thread.start()
    thread.join()
    assert hook is threading.excepthook
    (line,) = logged()
    assert ("thread.uncaught_exception", "worker-1", "ValueError") == (
        line["message"],
        line["thread"],
        line["error.type"],
    )


def test_a_thread_that_ends_itself_is_no_failure(logged: Lines) -> None:
    """SystemExit is how a thread says that it is done; anything else is critical."""
    for target, argument in ((sys.exit, "done"), (int, "x")):
        thread = threading.Thread(target=target, args=(argument,))
        thread.start()
        thread.join()
    (line,) = logged()
    assert ("thread.uncaught_exception", "critical") == (line["message"], line["level"])


def test_a_request_is_named_first_unless_the_event_names_another(logged: Lines) -> None:
    """Its ids and its user are there however many fields an event has; an event that has ids of its own keeps them."""
    request = RequestContext("req_1", "t_1")
    request.user_id = "u_1"
    token = current_request.set(request)
    try:
        log.info("many", **{f"field_{number}": "y" * 2000 for number in range(100)})
        logging.getLogger("library").info("record")
        log.info("own", request_id="req_2")
    finally:
        current_request.reset(token)
    log.info("outside")
    many, record, own, outside = logged()
    for line in (many, record):
        assert ("req_1", "t_1", "u_1") == (line["request_id"], line["trace_id"], line["user_id"])
    assert ("req_2", "t_1") == (own["request_id"], own["trace_id"])
    assert "request_id" not in outside


PROGRAM = """
import logging, sys, warnings
from server.telemetry.logs.setup import configure_logging
configure_logging(level="info", format=sys.argv[1] or None, service="s", env="e", version="v")
class Sloppy:
    def __del__(self):
        raise LookupError("in __del__")
Sloppy()
warnings.warn("careful")
logging.getLogger("careless").error("%d apples", "many")
raise SystemError("the end: password=hunter2")
"""


def run_program(form: str) -> subprocess.CompletedProcess[bytes]:
    """A process that warns, fails where nobody can catch it, and dies of an exception."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, form], capture_output=True, check=False, timeout=60, cwd=Path.cwd()
    )


def test_the_last_words_of_a_process() -> None:
    """An exception that ends the process is a line on standard output, and standard error stays silent."""
    done = run_program("json")
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert (1, b"") == (done.returncode, done.stderr)
    assert [
        "process.unraisable_exception",
        "<string>:9: UserWarning: careful",
        "%d apples",
        "process.uncaught_exception",
    ] == [line["message"].strip() for line in lines]
    assert ["many"] == lines[2]["args"]  # a careless call loses nothing but the formatting
    assert ("SystemError", "critical") == (lines[-1]["error.type"], lines[-1]["level"])
    assert b"hunter2" not in done.stdout


def test_the_console_format() -> None:
    """For people: text without colours where there is no terminal, with the traceback below, without secrets."""
    done = run_program("console")
    assert (1, b"") == (done.returncode, done.stderr)
    assert b"process.uncaught_exception" in done.stdout
    assert b"\nSystemError: the end: password=[redacted]" in done.stdout
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("form", ["", "json"])
def test_a_terminal_gets_the_console_format_unless_another_is_set(form: str) -> None:
    """Without a format a person reads text, in colours, and a pipe gets JSON; a format that is set holds everywhere."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with os.fdopen(theirs, "wb") as output:
            command = [sys.executable, "-c", PROGRAM, form]
            subprocess.run(command, stdout=output, stderr=subprocess.DEVNULL, check=False, timeout=60)
        shown = terminal.read(65_536)
    assert form == ("json" if shown.startswith(b"{") else "")
    assert (b"\x1b[" in shown) == (not form)
    assert run_program(form).stdout.startswith(b"{")

"""Several processes that write their logs into one pipe, as the workers of a service do."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
from contextlib import closing

import orjson

from server.settings import ROOT

PROCESSES, EVENTS = 4, 60  # together less than what waits in one process at most
SMALL_PIPE_BYTES = 2 * select.PIPE_BUF  # it is full nearly all the time
# Each event is as long as a line may become; its stack and its values are cut to fit.
WRITER = f"""
import asyncio, sys, structlog
from server.telemetry.logs.requests import AccessLog
from server.telemetry.logs.setup import configure_logging
from server.telemetry.context import RequestContext, RequestLine
from server.telemetry.timings import Timings

configure_logging(level="info", format=sys.argv[2], service="mastery", env="test", version="1")
log = structlog.get_logger()

def deep(levels):
    if levels:
        deep(levels - 1)
    raise ValueError("x" * 3000)

async def main():
    requests = AccessLog()
    for number in range({EVENTS}):
        for _ in range(3):
            context, timings = RequestContext("r" * 200, "t" * 200), Timings()
            requests.write(RequestLine(context, "GET", "/r", 200, timings.read(), timings, "::1", 1, "allowed"))
        try:
            deep(20)
        except ValueError:
            log.exception("long", writer=sys.argv[1], number=number, values=["y" * 700] * 2)
        await asyncio.sleep(0)

asyncio.run(main())
"""


def read_slowly(descriptor: int) -> bytes:
    """All that arrives, taken in pieces of an odd size from a pipe that is full most of the time."""
    pieces = []
    while piece := os.read(descriptor, 3001):
        pieces.append(piece)
    return b"".join(pieces)


def test_lines_of_several_processes_do_not_mix() -> None:
    """Whoever writes how much at once: each line is one process's, whole, and none is missing."""
    reading, writing = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALL_PIPE_BYTES)
    command = [sys.executable, "-c", WRITER]
    with closing(os.fdopen(writing, "wb")) as pipe:
        processes = [
            subprocess.Popen([*command, str(number), "json"], stdout=pipe, cwd=ROOT)
            for number in range(PROCESSES)
        ]
    written = read_slowly(reading)
    os.close(reading)
    assert [0] * PROCESSES == [process.wait(timeout=30) for process in processes]
    lines = [orjson.loads(line) for line in written.splitlines()]
    long = sorted((line["writer"], line["number"]) for line in lines if line["message"] == "long")
    assert [(str(writer), number) for writer in range(PROCESSES) for number in range(EVENTS)] == long
    assert 3 * PROCESSES * EVENTS == sum(line["message"] == "http.request" for line in lines)

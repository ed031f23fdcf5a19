"""Load on a server: by wrk where it is installed, else by a generator of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.machine import on_cores

_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
_GRACE_SECONDS = 30


class LoadFailed(Exception):
    """The load generator did not do its work; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Load:
    """So many connections, each with one request after the other, for so long.

    Attributes:
        requests: whole HTTP requests as bytes, sent in turn; see `request_bytes`.
        per_second: how many all connections send together, where they do not send as fast as they can; our own
            generator alone can do that.
    """

    port: int
    requests: Sequence[bytes]
    connections: int = 64
    seconds: float = 3.0
    per_second: float | None = None


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What the load generator saw.

    Attributes:
        requests: answered in all.
        seconds: that it took.
        p50_ms, p99_ms, max_ms: percentiles of the time to an answer, in milliseconds.
        refused: answers with a status of 400 and more.
        broken: connections that failed, and requests without an answer.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    refused: int
    broken: int

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def request_bytes(
    port: int, path: str, headers: Mapping[str, str], *, method: str = "GET", body: bytes = b""
) -> bytes:
    """A request as it goes over the wire; a body is JSON."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *(f"{k}: {v}" for k, v in headers.items()),
        *(("Content-Type: application/json", f"Content-Length: {len(body)}") if body else ()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def generator_name() -> str:
    """Which generator `run_load` uses on this machine."""
    return "wrk" if shutil.which("wrk") else "bench.harness.generator"


def run_load(load: Load, *, cores: frozenset[int] = frozenset(), generator: str | None = None) -> LoadFigures:
    """Put a load on 127.0.0.1 and say what came of it.

    Args:
        load: what to send.
        cores: where the generator runs.
        generator: one of `generator_name`'s answers, to choose; by default the one it gives.

    Raises:
        LoadFailed: there are no figures.
    """
    with tempfile.NamedTemporaryFile(prefix="bench-requests-") as file:
        file.write(b"".join(b"%d\n%s" % (len(request), request) for request in load.requests))
        file.flush()
        command = _wrk(load) if (generator or generator_name()) == "wrk" else _ours(load, len(cores) or 1)
        with on_cores(cores):
            try:
                done = subprocess.run(
                    command,
                    env={**os.environ, "BENCH_REQUESTS": file.name},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                    text=True,
                    timeout=load.seconds + _GRACE_SECONDS,
                )
            except subprocess.TimeoutExpired as error:
                raise LoadFailed(f"{command[0]} did not end in time") from error
    return _figures(done.stdout, done.stderr)


def _wrk(load: Load) -> list[str]:
    # whole seconds are all it takes
    return [
        "wrk", "--threads", "1", "--connections", str(load.connections), "--duration",
        f"{max(1, round(load.seconds))}s", "--timeout", "10s", "--script", str(_WRK_SCRIPT),
        f"http://127.0.0.1:{load.port}/",
    ]  # fmt: skip


def _ours(load: Load, processes: int) -> list[str]:
    return [
        sys.executable, "-m", "bench.harness.generator", "--port", str(load.port), "--connections",
        str(load.connections), "--seconds", str(load.seconds), "--processes", str(processes),
        *(() if load.per_second is None else ("--per-second", str(load.per_second))),
    ]  # fmt: skip


def _figures(output: str, complaint: str) -> LoadFigures:
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            if found["requests"]:
                return LoadFigures(**found)
    raise LoadFailed(f"no request was answered; the generator said: {(output + complaint)[-500:].strip()}")

"""Commands in processes of their own that need not start: each is forked from one that has imported what they need.

`python -m server users …` takes half a second of imports for some milliseconds of work, and some tests run dozens of
commands. A forked one is a process like any other: with its own environment, standard streams and exit code.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from server.settings import ROOT

_lock = threading.Lock()


def run_forked(
    arguments: tuple[str, ...], environment: dict[str, str], stdin: str | None, *, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run `python -m server …` of a checkout to its end, with this text on its standard input."""
    with tempfile.TemporaryDirectory() as name:
        streams = [Path(name) / stream for stream in ("stdin", "stdout", "stderr")]
        streams[0].write_text(stdin or "")
        request = {"arguments": arguments, "environment": environment, "streams": [*map(str, streams)]}
        with _lock:
            parent = _parent(folder)
            assert parent.stdin is not None
            assert parent.stdout is not None
            parent.stdin.write(f"{json.dumps(request)}\n")
            parent.stdin.flush()
            code = int(parent.stdout.readline())
        return subprocess.CompletedProcess(
            arguments, code, stdout=streams[1].read_text(), stderr=streams[2].read_text()
        )


@functools.cache
def _parent(folder: Path) -> subprocess.Popen[str]:
    """The process that forks for a checkout; it ends with this one."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked_commands"],
        cwd=folder,  # where `server` is looked for first
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        with parent:
            assert parent.stdin is not None
            parent.stdin.close()

    atexit.register(end)
    return parent


def _serve() -> dict[str, Any] | None:
    """Fork for each line of standard input, and write how it ended; returns the request, in a forked process."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            request: dict[str, Any] = json.loads(line)
            return request
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    return None


def main() -> None:
    """Import everything but the command line's own module, and serve."""
    import server.cli  # noqa: PLC0415 - only the process that forks needs all of it

    for module in pkgutil.iter_modules(server.cli.__path__, "server.cli."):
        importlib.import_module(module.name)
    importlib.import_module("server.telemetry.logs.setup")
    folder = Path.cwd()
    os.chdir("/")  # no process of the folder's that runs on, for tests that look for such ones
    gc.freeze()  # what is shared is not looked through, and not copied for that
    request = _serve()
    if request is None:
        return
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, path in enumerate(request["streams"]):
        stream = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - what it had read ahead is the parent's
    sys.argv = ["server", *request["arguments"]]
    runpy.run_module("server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

"""The web server's configuration, from the environment.

`python -m server serve` imports the application, then becomes gunicorn's master: workers are forked with what it has
imported. With `gunicorn --config config/gunicorn.py server.app:application` each worker imports it by itself. Either
way each makes its own application: its connections, its event loop and its files of metrics are its own.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Any

from server import __version__
from server.cli.master import Master, repeat_command
from server.telemetry.logs.setup import configure_logging
from server.telemetry.metrics.directory import (
    is_prepared,
    memory_directory,
    pass_on_directory,
    prepare_directory,
    remove_directory,
)


def _setting(variable: str, default: str) -> str:
    """The variable's value; an empty one counts as not set."""
    return os.environ.get(variable, "").strip() or default


def _address(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# What workers import stays: to look for cycles in it took a sixth of their start. server.app settles it afterwards.
gc.set_threshold(10_000, 50, 100)

bind = _address(_setting("HOST", "127.0.0.1"), _setting("PORT", "8000"))
workers = int(_setting("WEB_CONCURRENCY", "1"))
worker_class = "aiohttp.GunicornUVLoopWebWorker"
worker_tmp_dir = memory_directory()  # the heartbeat's file: a slow disk must not look like a dead worker
preload_app = False

# From SIGTERM it is 30 s to a platform's SIGKILL.
graceful_timeout = 20

control_socket_disable = True
proc_name = "mastery"
loglevel = _setting("LOG_LEVEL", "info")
logger_class = "server.cli.master.GunicornLogger"

# Here, for gunicorn logs its first line before it calls any hook.
configure_logging(
    level=loglevel,
    format=_setting("LOG_FORMAT", "") or None,
    env=_setting("MASTERY_ENV", "production"),
    version=__version__,
)


def on_starting(server: Any) -> None:
    """Before the first worker: the directory in which they share their metrics, emptied of another run's."""
    Master.adopt(server)
    if is_prepared():  # by `serve`
        return
    if "prometheus_client" in sys.modules:
        raise RuntimeError(
            "the application must not be preloaded: metrics of several workers would not add up"
        )
    prepare_directory(fresh="GUNICORN_PID" in os.environ)  # the old master's, if that one passes it on
    atexit.register(remove_directory)


def post_worker_init(worker: Any) -> None:
    """Before a worker serves: its listeners as plain sockets. The event loop closes gunicorn's a second time."""
    worker.sockets = [listener.sock for listener in worker.sockets]


def child_exit(server: Any, worker: Any) -> None:
    """After a worker's end: what only a living process has is dropped, what it counted stays."""
    # Not at the top: it brings prometheus_client, which must not be imported before its directory is prepared.
    from server.telemetry.metrics.workers import forget_worker  # noqa: PLC0415

    forget_worker(worker.pid, retire_files=not server.master_pid)  # until then it is the old master's task


def pre_exec(server: Any) -> None:
    """On SIGUSR2, in the process that becomes the new master."""
    repeat_command(server)
    pass_on_directory(server.cfg.env_orig)

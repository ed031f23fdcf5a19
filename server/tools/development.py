"""`make run`: the whole service on one machine, with servers of its own, a course to study and accounts to do it."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from server.settings import Settings
from server.telemetry.log import configure_logging
from server.tools.accounts import demo_token, ensure_demo_accounts
from server.tools.banner import banner
from server.tools.embedded import EmbeddedServer, postgres_server, redis_server
from server.tools.environment import completed
from server.tools.failures import CommandFailed
from server.tools.importing import import_path
from server.tools.migrations import migrate
from server.tools.processes import Process, child_process, wait_until_ready
from server.tools.signals import run_interruptibly
from server.tools.state import Running, StateFolder
from server.tools.web import check_port, gunicorn_command, is_ready, local_address

READY_SECONDS = 60.0
DRAIN_SECONDS = 28.0  # more than gunicorn's own graceful timeout
_WATCH_SECONDS = 0.5

log = structlog.get_logger(__name__)


def run_development(environment: Mapping[str, str], root: Path, version: str) -> None:
    """Start everything, serve, and stop everything when the block is left: returns only if the server ends.

    Args:
        environment: DATABASE_URL and REDIS_URL, where set, are used instead of servers of our own.
        root: the checkout.
        version: of the service, for its log lines.

    Raises:
        SettingsError: the environment is not usable; nothing was started.
        CommandFailed: something can't start, or the web server ended.
    """
    state = StateFolder(root / ".state")
    defaults = {"MASTERY_ENV": "development"}
    unset = {
        "DATABASE_URL": "postgresql://to-be-started",
        "REDIS_URL": "redis://to-be-started",
        "SECRET_KEY": "-" * 64,
    }
    checked = Settings.from_env(completed(environment, {**defaults, **unset}))
    configure_logging(
        level=checked.log_level,
        format=checked.log_format,
        service="mastery",
        env=checked.environment,
        version=version,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(state.claimed())
        check_port(checked.host, checked.port)
        servers = dict(defaults)
        watched: dict[str, Process] = {}
        if not environment.get("DATABASE_URL", "").strip():
            servers["DATABASE_URL"] = _start(stack, watched, "postgres", postgres_server(state.postgres))
        if not environment.get("REDIS_URL"):
            servers["REDIS_URL"] = _start(stack, watched, "redis", redis_server(state.redis))
        if not environment.get("SECRET_KEY"):
            servers["SECRET_KEY"] = state.secret_key()
        complete = completed(environment, servers)
        settings = Settings.from_env(complete)
        address = "http://{}:{}".format(*local_address(settings.host, settings.port))
        state.announce(_running(settings, address))
        run_interruptibly(functools.partial(_prepare_data, settings, root))
        gunicorn = stack.enter_context(
            child_process(
                gunicorn_command(root), output=None, environment=complete, stop_seconds=DRAIN_SECONDS
            )
        )
        ready = functools.partial(is_ready, settings.host, settings.port)
        if not wait_until_ready(gunicorn, ready, seconds=READY_SECONDS):
            raise CommandFailed("the web server did not become ready; its log lines above say why")
        tokens = {role: demo_token(settings, role) for role in ("user", "admin")}
        sys.stdout.write(banner(address, tokens, colours=sys.stdout.isatty()))
        sys.stdout.flush()
        _watch(gunicorn, watched)
        raise CommandFailed(f"the web server ended by itself, with exit code {gunicorn.returncode}")


def _start(
    stack: contextlib.ExitStack,
    watched: dict[str, Process],
    name: str,
    server: contextlib.AbstractContextManager[EmbeddedServer],
) -> str:
    started = stack.enter_context(server)
    watched[name] = started.process
    log.info(f"development.{name}_started", port=started.port, pid=started.pid)
    return started.url


def _prepare_data(settings: Settings, root: Path) -> None:
    migrate(settings.database_url, root / "sql" / "migrations")
    import_path(settings.database_url, root / "config" / "sample-course")
    ensure_demo_accounts(settings.database_url)


def _watch(gunicorn: Process, watched: dict[str, Process]) -> None:
    """Wait for the web server's end, and say when another server ends: the service goes on without it."""
    while gunicorn.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            gunicorn.wait(_WATCH_SECONDS)
        for name in [name for name, process in watched.items() if process.poll() is not None]:
            log.error("development.server_ended", server=name, exit_code=watched.pop(name).returncode)


def _running(settings: Settings, address: str) -> Running:
    return Running(
        pid=os.getpid(),
        address=address,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        secret_key=settings.secret_key,
    )

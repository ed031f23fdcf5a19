"""`make run`: the whole service on one machine, with servers of its own, a course, accounts, and a banner."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog

from server.cli.database import tell_readers
from server.cli.environment import Running, StateFolder, completed
from server.cli.importing import has_classes, import_path
from server.cli.migrations import migrate
from server.cli.signals import pause, run_interruptibly
from server.cli.users import demo_token, ensure_demo_accounts
from server.cli.web import check_port, is_ready, local_url
from server.development import postgres_server, redis_server
from server.development.processes import Process, child_process, wait_until_ready
from server.domain.identity.users import DEMO_EMAILS, DEMO_PASSWORD
from server.errors import CommandError
from server.files import HOME
from server.settings import Settings
from server.telemetry.logs.setup import configure_logging

log = structlog.get_logger(__name__)

READY_SECONDS = 60.0
DRAIN_SECONDS = 28.0  # more than gunicorn itself gives its workers
_WATCH_SECONDS = 0.1
_DEFAULTS = {"MASTERY_ENV": "development"}
_NOT_YET = {
    "DATABASE_URL": "postgresql://started-below",
    "REDIS_URL": "redis://started-below",
    "SECRET_KEY": "made-below" * 4,
}


def banner(address: str, tokens: dict[str, str], *, with_password: bool, colours: bool) -> str:
    """Where everything is, the demo accounts, and commands that work when pasted.

    Args:
        address: of the service, such as "http://127.0.0.1:8000".
        tokens: an access token by role.
        with_password: whether the demo accounts sign in by their password, too.
        colours: for a terminal.
    """
    bold, reset = ("\x1b[1m", "\x1b[0m") if colours else ("", "")
    accounts = [f"{email} / {DEMO_PASSWORD}" for email in DEMO_EMAILS.values()] if with_password else []
    return "\n".join(
        [
            "",
            f"{bold}Mastery is ready: {address}{reset}",
            "",
            f"  {'API reference':<14} {address}/api/docs",
            f"  {'Dashboard':<14} {address}/dashboard",
            *(
                f"  {name:<14} {account}"
                for name, account in zip(("Student", "Admin"), accounts, strict=False)
            ),
            "",
            "For the examples of the documentation, paste:",
            f"export MASTERY={shlex.quote(address)} TOKEN={tokens['user']} ADMIN={tokens['admin']}",
            "",
            "Then try:",
            'curl -i "$MASTERY/api/health"',
            'curl -i -H "Authorization: Bearer $TOKEN" "$MASTERY/api/classes"',
            'curl -i -H "Authorization: Bearer $ADMIN" "$MASTERY/api/admin/analytics/users"',
            "",
            f"{bold}Ctrl-C stops it.{reset} Its data stays for the next time; make clean removes it.",
            "",
        ]
    )


def run_development(environment: Mapping[str, str], root: Path, version: str) -> None:
    """Start everything and serve until a stop is requested, which is an exception; then stop everything.

    Args:
        environment: the settings; what names no DATABASE_URL or REDIS_URL gets a server of our own.
        root: the folder of the configuration and the SQL.
        version: of the service, for its log lines.

    Raises:
        SettingsError: the environment is not usable; nothing was started.
        CommandError: something did not start, or the web server ended by itself.
        StopRequested: as asked.
    """
    checked = Settings.from_env(completed(environment, _DEFAULTS | _NOT_YET))
    configure_logging(**checked.logging, version=version)
    state = StateFolder(HOME / ".state")
    with state.claimed():
        check_port(checked.host, checked.port)
        with _servers(environment, state) as (complete, embedded):
            owns_database = "postgres" in embedded
            settings = Settings.from_env(complete)
            address = local_url(settings.host, settings.port)
            state.announce(_running(settings, address))
            run_interruptibly(functools.partial(_prepare_data, settings, root, is_own_database=owns_database))
            with child_process(
                [sys.executable, "-m", "server", "serve"],
                output=None,
                environment=complete | {"HOST": settings.host},  # by itself it listens on every address
                stop_seconds=DRAIN_SECONDS,
            ) as gunicorn:
                ready = functools.partial(is_ready, settings.host, settings.port)
                if not wait_until_ready(gunicorn, ready, seconds=READY_SECONDS):
                    raise CommandError("the web server did not become ready; its log lines say why")
                tokens = {role: demo_token(settings, role) for role in ("user", "admin")}
                sys.stdout.write(
                    banner(address, tokens, with_password=owns_database, colours=sys.stdout.isatty())
                )
                sys.stdout.flush()
                _watch(gunicorn, embedded)
                raise CommandError(f"the web server ended by itself, with exit code {gunicorn.returncode}")


@contextlib.contextmanager
def _servers(
    environment: Mapping[str, str], state: StateFolder
) -> Iterator[tuple[dict[str, str], dict[str, Process]]]:
    """The complete environment, and the processes by name of those servers that had to be started for it."""
    found = dict(_DEFAULTS)
    processes: dict[str, Process] = {}
    with contextlib.ExitStack() as stack:
        for name, variable, start, folder in (
            ("postgres", "DATABASE_URL", postgres_server, state.postgres),
            ("redis", "REDIS_URL", redis_server, state.redis),
        ):
            if not environment.get(variable, "").strip():
                server = stack.enter_context(start(folder))
                log.info("development.server_started", server=name, port=server.port, server_pid=server.pid)
                found[variable] = server.url
                processes[name] = server.process
        if "postgres" in processes:  # only in a database of our own have the accounts a password
            found["DEMO_ACCOUNTS"] = "on"
        if not environment.get("SECRET_KEY", "").strip():
            found["SECRET_KEY"] = state.secret_key()
        yield completed(environment, found), processes


def _prepare_data(settings: Settings, root: Path, *, is_own_database: bool) -> None:
    past_pooler = None if is_own_database else settings.migration_database_url
    migrate(past_pooler or settings.database_url, root / "sql" / "migrations")
    if not has_classes(
        settings.database_url
    ):  # or what an administrator has edited would be as it was before
        report = import_path(settings.database_url, root / "config" / "sample-course")
        if not tell_readers(settings, report.stale):
            log.warning("cache.not_invalidated", stale_at_most_seconds=settings.cache_ttl_seconds)
    ensure_demo_accounts(settings.database_url, with_password=is_own_database)


def _watch(gunicorn: Process, embedded: dict[str, Process]) -> None:
    """Wait for the web server's end, and say when another server ends: the service goes on without it."""
    running = dict(embedded)
    while gunicorn.poll() is None:
        pause(_WATCH_SECONDS)
        for name, process in list(running.items()):
            if process.poll() is not None:
                log.error("development.server_ended", server=name, exit_code=process.returncode)
                del running[name]


def _running(settings: Settings, address: str) -> Running:
    return Running(
        pid=os.getpid(),
        address=address,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        secret_key=settings.secret_key,
    )

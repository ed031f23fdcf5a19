"""The web process: the same gunicorn command in development and in production.

What needs gunicorn or the application is imported when it is called: other commands look here, too.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import http.client
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from server import __version__
from server.errors import CommandError
from server.files import HOME
from server.settings import Settings, SettingsError
from server.telemetry.logs.setup import configure_logging
from server.telemetry.metrics.directory import prepare_directory, remove_directory


def gunicorn_command(root: Path) -> list[str]:
    """The command that serves; everything else is in config/gunicorn.py and in the environment."""
    configuration = root / "config" / "gunicorn.py"
    return [
        sys.executable, "-m", "gunicorn",
        "--chdir", str(HOME), "--config", str(configuration), "server.app:application",
    ]  # fmt: skip


def is_successor(environment: Mapping[str, str]) -> bool:
    """Whether this process is to replace a running master (SIGUSR2): it has that one's sockets."""
    return "GUNICORN_PID" in environment


def serve(settings: Settings, root: Path) -> None:
    """Import the application, check what it will find, and go on as gunicorn's master, which ends the process.

    Workers are forked with what is imported: they start in a third of the time, and share the memory of it.

    Raises:
        SettingsError: the rate limits file can't be used; a problem a line of the file.
    """
    configure_logging(**settings.logging, version=__version__)
    prepare_directory(fresh=is_successor(os.environ))  # before prometheus_client is imported
    atexit.register(remove_directory)
    gc.disable()  # what is imported stays: looking for garbage in it takes a tenth of the time
    if not is_successor(os.environ):  # which goes on with the limits that were in force
        check_rate_limits(settings)

    from gunicorn.app.wsgiapp import WSGIApplication  # type: ignore[import-untyped]  # noqa: PLC0415 - see above

    import server.app  # noqa: F401, PLC0415

    gc.freeze()  # a worker that collected would copy the memory that it shares
    gc.enable()
    sys.argv = gunicorn_command(root)[2:]
    WSGIApplication(prog="gunicorn").run()


def check_rate_limits(settings: Settings) -> None:
    """Make sure that the workers will find a rate limits file that they can use.

    Raises:
        SettingsError: they will not; a problem a line of the file.
    """
    from server.api.routes import limit_groups, limited_routes  # noqa: PLC0415 - see above
    from server.domain.identity.subjects import parse_subject  # noqa: PLC0415
    from server.ratelimit.limits_file import RateLimitsError, load_rate_limits  # noqa: PLC0415

    try:
        load_rate_limits(
            settings.rate_limits_file,
            required_groups=limit_groups(),
            routes=limited_routes(),
            parse_subject=parse_subject,
        )
    except RateLimitsError as error:
        raise SettingsError([f"RATE_LIMITS_FILE: {problem}" for problem in error.problems]) from None


def has_sockets(environment: Mapping[str, str]) -> bool:
    """Whether this process was started with listening sockets (systemd's socket activation)."""
    return environment.get("LISTEN_PID") == str(os.getpid()) and environment.get("LISTEN_FDS", "0") != "0"


def check_port(host: str, port: int, *, command: str = "make run") -> None:
    """Make sure that we can listen there, before anything is started for nothing.

    Raises:
        CommandError: we can't; the message names the variable to change.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"PORT: {port} of {host} is in use; take another: PORT={_another(port)} {command}"
        elif error.errno == errno.EACCES:
            reason = f"PORT: {port} is for privileged users only; take one from 1024 to 65535"
        else:
            reason = f"HOST: can't listen on {host}: {error.strerror}"
        raise CommandError(reason) from error


def local_address(host: str, port: int) -> tuple[str, int]:
    """Where this machine reaches a server that listens there: for "every address", the loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - not bound


def local_url(host: str, port: int) -> str:
    """The same as a URL."""
    host, port = local_address(host, port)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_ready(host: str, port: int) -> bool:
    """Whether the server says that it is ready for requests."""
    connection = http.client.HTTPConnection(*local_address(host, port), timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def _another(port: int) -> int:
    return port + 1 if port < 65535 else 8000

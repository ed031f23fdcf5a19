"""A real PgBouncer in transaction mode, for tests; they are skipped where it is not installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from server.development import free_port
from server.development.processes import child_process, wait_until_ready
from server.development.servers import unprivileged_prefix
from tests.support.programs import for_want_of

_START_SECONDS = 20


@contextmanager
def pgbouncer(folder: Path, database_url: str, **settings: str) -> Iterator[str]:
    """The URL of a database behind a pooler of its own, as long as the block lasts.

    Args:
        folder: for its files.
        database_url: where the database is, with a password.
        settings: more of its settings, such as `default_pool_size="2"`.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(for_want_of("pgbouncer"))
    as_user = unprivileged_prefix(folder)
    if as_user is None:
        pytest.skip("PgBouncer refuses to run as root, and this machine has no other way to run it")
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
        ready = wait_until_ready(process, lambda: _answers(url), seconds=_START_SECONDS)
        assert ready, (folder / "pgbouncer.log").read_text()
        yield url


def _answers(url: str) -> bool:
    try:
        with closing(psycopg2.connect(url, connect_timeout=1)):
            return True
    except psycopg2.OperationalError as error:
        # A pooler that has no room says so: it runs.
        return "no more connections" in str(error)

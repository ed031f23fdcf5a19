"""The real service for tests that look at it from outside: two workers over the sample course."""

from __future__ import annotations

import functools
import http.client
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO, Any

import redis

from server.cli.importing import import_path
from server.cli.users import demo_token, ensure_demo_accounts
from server.cli.web import is_ready
from server.development import EmbeddedServer, free_port
from server.development.processes import Process, child_process, wait_until_ready
from server.settings import ROOT, Settings
from tests.conftest import replace_database, run_sql

SECRET_KEY = "a key for the tests only, long enough for HS256"
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Service:
    """A running service, the environment it runs in, and a token for each role."""

    process: Process
    environment: dict[str, str]
    port: int
    user_token: str
    admin_token: str

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://{_HOST}:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: Any = None,
        accept: str = "*/*",
        traceparent: str | None = None,
    ) -> tuple[int, str]:
        """The status and the text of an answer, over a connection of its own: any worker may take it."""
        headers = {"Accept": accept}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if traceparent is not None:
            headers["traceparent"] = traceparent
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=30)
        with closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@functools.cache
def _filled_template(url: str, template: str) -> str:
    """The name of a copy of a template that has the sample course and the demo accounts: made once a server."""
    name = f"{template}_with_course"
    run_sql(url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    import_path(replace_database(url, name), ROOT / "config" / "sample-course")
    ensure_demo_accounts(replace_database(url, name), with_password=True)
    return name


@contextmanager
def running_service(
    postgres: EmbeddedServer,
    redis_server: EmbeddedServer,
    template: str,
    *,
    output: IO[bytes] | int = subprocess.DEVNULL,
    **variables: str,
) -> Iterator[Service]:
    """Start the service on a database of its own, and on a Redis that is emptied before.

    Args:
        postgres: the server that the database is made on.
        redis_server: the Redis.
        template: the name of the migrated database that ours is copied from.
        output: where its standard output and error go.
        variables: further settings, as in the environment.
    """
    name = f"service_{secrets.token_hex(6)}"
    filled = _filled_template(postgres.url, template)
    run_sql(postgres.url, f"CREATE DATABASE {name} TEMPLATE {filled} STRATEGY file_copy")
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        client.flushall()
    url = replace_database(postgres.url, name)
    port = free_port()
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "REDIS_URL": redis_server.url,
        "SECRET_KEY": SECRET_KEY,
        "HOST": _HOST,
        "PORT": str(port),
        "WEB_CONCURRENCY": "2",
        **variables,
    }
    settings = Settings.from_env(environment)
    command = [sys.executable, "-m", "server", "serve"]
    with child_process(command, environment=environment, output=output) as process:
        assert wait_until_ready(process, lambda: is_ready(_HOST, port), seconds=60)
        yield Service(process, environment, port, demo_token(settings, "user"), demo_token(settings, "admin"))
    run_sql(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")

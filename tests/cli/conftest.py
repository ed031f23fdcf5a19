"""What the tests of the command line's tools share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from server.development.servers import EmbeddedServer
from tests.conftest import replace_database, run_sql


@pytest.fixture
def empty_url(shared_postgres: EmbeddedServer) -> Iterator[str]:
    """A database with nothing in it that belongs to one test."""
    name = f"empty_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name}")
    yield replace_database(shared_postgres.url, name)
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")

"""Real servers for every test: one PostgreSQL and one Redis a session, a fresh database a test."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import shutil
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
import redis
import structlog
from hypothesis import settings

from server.cli.migrations import migrate
from server.development import EmbeddedServer, postgres_server, redis_server
from server.stores.postgres.database import Database
from tests.support.browser import Browser, running_browser
from tests.support.course import course, filled_templates, people, template
from tests.support.programs import skipped_for_want
from tests.support.properties import as_decorators

__all__ = ["course", "filled_templates", "people", "template"]

# A test's database may be lost with the machine: speed is worth more than durability here.
FAST_POSTGRES = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "autovacuum=off",  # plans are tested with the statistics that a test has taken, at no moment of chance
    "max_wal_size=128MB",  # it lies in memory, where there is room
    "min_wal_size=32MB",
)

# To copy a database is to make 600 files, which a file system in memory does at a tenth of the cost.
MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own there, which only its user may open
MEMORY_BYTES = 3 * 2**30


FAULT_ROW = "what the limiter did while Redis was broken in one way"
CONFORMANCE_ROW = "which of the limiter's promises a store has kept"
SCALED_OUT = "what a Cluster that lost a master has cost"

# The same examples in every run, so that a failure is the change's; `make test-long` takes random ones, and more.
settings.register_profile("test", max_examples=50, derandomize=True, database=None, deadline=None)
settings.register_profile("long", max_examples=500, database=None, deadline=None, print_blob=True)
settings.load_profile("test")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the run's seed, and keep the files in memory where it has the room unless the caller names a folder."""
    gc.set_threshold(
        10_000, 50, 100
    )  # half a million objects of imports and tests stay, whoever looks for cycles
    if config.getoption("hypothesis_profile") == "long" and config.getoption("hypothesis_seed") is None:
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))
    if hasattr(config, "workerinput") or config.getoption("basetemp") is not None:
        return
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish() -> None:
    """What was collected stays to the end: no later look for cycles goes through it."""
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The seed of a run with random examples, for another with the same."""
    seed = config.getoption("hypothesis_seed")
    return [] if seed is None else [f"random examples from: make test-long ARGS=--hypothesis-seed={seed}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, what was found to be pasted into a test, and what was skipped for want of a program."""
    stats = terminalreporter.stats
    rows = [
        value
        for report in stats.get("passed", [])
        for name, value in report.user_properties
        if name == FAULT_ROW
    ]
    if rows:
        terminalreporter.section("the rate limiter while Redis is broken")
        figures = f"{'decisions':>10}{'median ms':>11}{'p99 ms':>8}{'loop late':>11}{'recovered ms':>14}"
        terminalreporter.write_line(f"{'fault':18}{figures}  decided by")
        for row in rows:
            terminalreporter.write_line(row)
    stores = [
        value
        for outcome in ("passed", "failed")
        for report in stats.get(outcome, [])
        for name, value in report.user_properties
        if name == CONFORMANCE_ROW
    ]
    if stores:
        terminalreporter.section("the rate limiter on every store")
        for promise in stores[0][1]:
            kept = "  ".join(f"{name}: {results[promise]}" for name, results in stores)
            terminalreporter.write_line(f"{promise.replace('_', ' '):26}{kept}")
    scaled = [
        value
        for outcome in ("passed", "failed")
        for report in stats.get(outcome, [])
        for name, value in report.user_properties
        if name == SCALED_OUT
    ]
    if scaled:
        terminalreporter.section("the service on a Cluster that loses a master under load")
        for line in scaled:
            terminalreporter.write_line(line)
    found = [
        (report.nodeid, line)
        for report in stats.get("failed", [])
        for line in as_decorators(report.longreprtext)
    ]
    if found:
        terminalreporter.section("examples that fail, to be pasted over their tests")
        for nodeid, line in found:
            terminalreporter.write_line(f"{nodeid}: {line}")
    for line in skipped_for_want(stats.get("skipped", [])):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Logging is as at the start after every test: what a command or a bench configures here ends with it."""
    root = logging.getLogger()
    handlers, level, show_warning = list(root.handlers), root.level, warnings.showwarning
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    if root.handlers != handlers:
        logging.captureWarnings(capture=False)
        warnings.showwarning = show_warning
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


@pytest.fixture(scope="session")
def shared_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The session's PostgreSQL; tests use `database_url`, and start a server of their own to break one."""
    with postgres_server(tmp_path_factory.mktemp("postgres"), options=FAST_POSTGRES) as server:
        # A test opens a dozen connections: with the default of 4096 rounds, passwords were a fifth of all their work.
        password = urlsplit(server.url).password
        run_sql(server.url, f"SET scram_iterations = 1; ALTER ROLE mastery PASSWORD '{password}'")
        yield server


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The session's Redis; tests use `redis_url`, and start a server of their own to break one."""
    with redis_server(tmp_path_factory.mktemp("redis"), options=('save ""',)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_client(shared_redis: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the session's Redis, whose connection is kept."""
    with closing(redis.Redis.from_url(shared_redis.url)) as client:
        yield client


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The session's Chromium; each tab of it is as in a browser of its own."""
    with running_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A Redis that belongs to one test, which may pause, kill or flush it."""
    with redis_server(tmp_path / "redis", options=('save ""',)) as server:
        yield server


def run_sql(url: str, statement: str) -> None:
    """Run one statement on a connection of its own, outside of a transaction."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)


def replace_database(url: str, name: str) -> str:
    """The same server's other database."""
    return f"{url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def database_template(shared_postgres: EmbeddedServer) -> str:
    """The name of a migrated, empty database that the tests' databases are copied from."""
    name = "mastery_template"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name}")
    migrate(replace_database(shared_postgres.url, name))
    return name


@pytest.fixture(scope="session")
def administer(shared_postgres: EmbeddedServer) -> Iterator[Callable[[str], None]]:
    """Run a statement on the session's PostgreSQL, on a connection that is kept."""
    with closing(psycopg2.connect(shared_postgres.url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield cursor.execute


@pytest.fixture
def database_url(
    shared_postgres: EmbeddedServer, administer: Callable[[str], None], template: str
) -> Iterator[str]:
    """A migrated database that belongs to one test, and has nothing but what its template has."""
    name = f"test_{secrets.token_hex(6)}"
    administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield replace_database(shared_postgres.url, name)
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_url(shared_postgres: EmbeddedServer) -> Iterator[str]:
    """A database with nothing in it that belongs to one test."""
    name = f"empty_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE DATABASE {name}")
    yield replace_database(shared_postgres.url, name)
    run_sql(shared_postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A started Database over the test's own copy of the schema."""
    database = Database(database_url, pool_size=4)
    await database.start()
    yield database
    await database.close()

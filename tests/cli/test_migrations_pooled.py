"""Migrations through a pooler in transaction mode, and where connections are short."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Timer
from typing import Any

import psycopg2
import pytest

from server.cli.migration_files import MigrationError, read_migrations
from server.cli.migrations import migrate
from server.development import EmbeddedServer, free_port
from server.settings import ROOT
from tests.cli.releases import NEVER, migrate_at_once, runs, start_migrate, write
from tests.conftest import run_sql
from tests.stores.postgres.databases import ask
from tests.support.pgbouncer import pgbouncer
from tests.support.waiting import wait_until

FILES = {
    "m0001_a": "CREATE TABLE a (x int); INSERT INTO a SELECT generate_series(1, 9); SELECT pg_sleep(0.3)",
    "m0002_index": "-- no-transaction\nCREATE INDEX CONCURRENTLY a_x ON a (x)",
    "m0003_batches": "-- batched\nUPDATE a SET x = -x WHERE x IN (SELECT x FROM a WHERE x > 0 LIMIT 2)",
    "m0004_rows": "INSERT INTO a VALUES (0)",
}
NAMES = [f"{name.removeprefix('m')}.sql" for name in FILES]
BACKENDS = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
)


@pytest.fixture
def pooled_url(empty_url: str, tmp_path: Path) -> Iterator[str]:
    """The empty database behind a pooler in transaction mode, with few connections for all."""
    (tmp_path / "pooler").mkdir()
    with pgbouncer(tmp_path / "pooler", empty_url, default_pool_size="3") as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for files."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_deploy_03_releases_at_once_behind_a_pooler(pooled_url: str, empty_url: str, folder: Path) -> None:
    """Three at once apply each file once, every kind of file; and again, and again, nothing blocks a later run."""
    write(folder, **FILES)
    assert NAMES == migrate_at_once(pooled_url, folder, 3)
    assert [(-x,) for x in range(9, -1, -1)] == ask(empty_url, "SELECT x FROM a ORDER BY x")
    assert [] == migrate_at_once(pooled_url, folder, 3)
    write(folder, m0005_more="INSERT INTO a VALUES (10)")
    assert ["0005_more.sql"] == migrate_at_once(pooled_url, folder, 3)
    assert [(0,)] == ask(empty_url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")


@pytest.mark.parametrize("first_line", ["", "-- no-transaction\n", "-- batched\n"])
async def test_deploy_03_killed_in_the_middle_behind_a_pooler(
    pooled_url: str, empty_url: str, folder: Path, first_line: str
) -> None:
    """SIGKILL leaves no lock on a pooled connection, whatever kind of file was running: the next three succeed."""
    write(folder, m0001_a="CREATE TABLE a ()", m0002_slow=f"{first_line}{NEVER}")
    process = start_migrate(pooled_url, folder)
    try:
        await wait_until(lambda: runs(empty_url, NEVER), "the file runs")
    finally:
        process.kill()
        process.communicate()
    if first_line == "-- no-transaction\n":  # what runs outside of a transaction goes on without its process
        await wait_until(lambda: _has_no_lock(empty_url), "the lock is free")
        ask(empty_url, BACKENDS.replace("count(*)", "pg_terminate_backend(pid)"))
    write(folder, m0002_slow="CREATE TABLE b ()")
    assert ["0002_slow.sql"] == migrate_at_once(pooled_url, folder, 3)
    await wait_until(
        lambda: ask(empty_url, BACKENDS) == [(0,)], "what the killed process was doing has ended"
    )


def test_deploy_03_limits_of_a_file_are_its_own(
    request: pytest.FixtureRequest, empty_url: str, folder: Path
) -> None:
    """A file has no statement_timeout but its own, and the pooled connections keep the limits of the service."""
    name = empty_url.rpartition("/")[2]
    run_sql(empty_url, f"ALTER DATABASE {name} SET statement_timeout = 200")
    pooled_url = request.getfixturevalue("pooled_url")  # its connections are made from here on
    write(
        folder,
        m0001_slow="CREATE TABLE a (x int); SELECT pg_sleep(0.5)",
        m0002_batch="-- batched\nDELETE FROM a",
    )
    assert 2 == len(migrate(pooled_url, folder))
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        shown = {ask(pooled_url, f"SHOW {name}")[0][0] for _ in range(5)}
        assert {"200ms" if name == "statement_timeout" else "0"} == shown
    write(
        folder,
        m0003_function="CREATE FUNCTION slow(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM pg_sleep(0.5); RETURN x; END$$; INSERT INTO a VALUES (1)",
        m0004_index="-- no-transaction\nSELECT pg_sleep(0.5);\nCREATE INDEX CONCURRENTLY a_x ON a (slow(x))",
    )
    with pytest.raises(
        MigrationError, match=r"0004_index.sql, line 3: .*timeout; MIGRATION_DATABASE_URL leads"
    ):
        migrate(pooled_url, folder)
    assert ["0004_index.sql"] == migrate(empty_url, folder)


@pytest.fixture
def limited_url(shared_postgres: EmbeddedServer, empty_url: str) -> Iterator[str]:
    """The empty database for a role that may have two connections, of which one is taken."""
    role = f"limited_{secrets.token_hex(6)}"
    run_sql(shared_postgres.url, f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 1")
    run_sql(empty_url, f"GRANT CREATE ON SCHEMA public TO {role}")
    yield f"postgresql://{role}:x@{empty_url.rpartition('@')[2]}"
    run_sql(empty_url, f"DROP OWNED BY {role} CASCADE")
    run_sql(shared_postgres.url, f"DROP ROLE {role}")


def test_deploy_03_a_free_connection_is_waited_for(limited_url: str, folder: Path) -> None:
    """While the service has all of the role's connections the release waits; and not without end."""
    write(folder, m0001_a="CREATE TABLE a ()")
    with closing(psycopg2.connect(limited_url)) as taken:
        with pytest.raises(
            MigrationError, match=r"no connection .* too many connections .*gave up after 0.3 s$"
        ):
            migrate(limited_url, folder, wait_seconds=0.3)
        timer = Timer(0.5, taken.close)
        timer.start()
        assert ["0001_a.sql"] == migrate(limited_url, folder, wait_seconds=60)
        timer.join()


def test_deploy_03_a_full_pooler_is_waited_for(empty_url: str, tmp_path: Path, folder: Path) -> None:
    """The same where the pooler has no room for another client."""
    write(folder, m0001_a="CREATE TABLE a ()")
    (tmp_path / "pooler").mkdir()
    with (
        pgbouncer(tmp_path / "pooler", empty_url, max_client_conn="1") as url,
        closing(psycopg2.connect(url)) as taken,
    ):
        with pytest.raises(MigrationError, match=r"no more connections allowed.*gave up after 0.3 s$"):
            migrate(url, folder, wait_seconds=0.3)
        timer = Timer(0.5, taken.close)
        timer.start()
        assert ["0001_a.sql"] == migrate(url, folder, wait_seconds=60)
        timer.join()


def test_deploy_03_a_wrong_password_is_not_waited_for(empty_url: str) -> None:
    """What does not pass by itself fails at once."""
    wrong = empty_url.replace("//mastery:", "//mastery:x")
    with pytest.raises(MigrationError, match=r"password authentication failed for user \"mastery\"$"):
        migrate(wrong)


def test_deploy_03_the_command_goes_past_the_pooler(empty_url: str) -> None:
    """MIGRATION_DATABASE_URL is where the schema is, whatever DATABASE_URL says, and whether it says anything."""
    nowhere = f"postgresql://mastery@127.0.0.1:{free_port()}/mastery"
    done = run_migrate(MIGRATION_DATABASE_URL=empty_url, DATABASE_URL=nowhere)
    assert 0 == done.returncode, done.stderr
    assert "" == done.stdout
    assert "0016_identity.sql" == events(done.stderr)[0]["migration"]
    done = run_migrate(MIGRATION_DATABASE_URL=empty_url)
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    assert [("migrate.finished", 0)] == [(line["message"], line["applied"]) for line in events(done.stderr)]
    refused = run_migrate(MIGRATION_DATABASE_URL="mysql://user:hunter2@h/d", DATABASE_URL=empty_url)
    assert 2 == refused.returncode
    (why,) = events(refused.stderr)
    assert ("migrate.failed", "error") == (why["message"], why["level"])
    assert "MIGRATION_DATABASE_URL: its value is not accepted" in why["detail"]
    assert "hunter2" not in refused.stderr


def test_deploy_03_a_rollback_accepts_a_newer_schema(empty_url: str) -> None:
    """The release before has nothing to do on a schema that the next one has migrated already, and succeeds."""
    migrate(empty_url)
    last = read_migrations()[-1].name
    newer = f"{int(last[:4]) + 1:04}_of_the_next_release.sql"
    run_sql(empty_url, f"INSERT INTO schema_migrations VALUES ('{newer}', 'x')")  # noqa: S608 - from above
    done = run_migrate(DATABASE_URL=empty_url)
    assert 0 == done.returncode, done.stderr
    assert [("migrate.finished", 0)] == [(line["message"], line["applied"]) for line in events(done.stderr)]
    run_sql(empty_url, f"DELETE FROM schema_migrations WHERE name <> '{newer}'")  # noqa: S608 - from above
    done = run_migrate(DATABASE_URL=empty_url)
    assert 1 == done.returncode
    (why,) = events(done.stderr)
    assert f"{newer} has been applied but its file is gone" in why["detail"]
    assert f"{last} is new but {newer} has been applied before it" in why["detail"]


def test_people_read_sentences_where_they_ask_for_them(empty_url: str) -> None:
    """LOG_FORMAT=console has the results on standard output, as on a terminal, and a failure in words."""
    done = run_migrate(DATABASE_URL=empty_url, LOG_FORMAT="console")
    assert done.stdout.startswith("0016_identity.sql: applied in ")
    done = run_migrate(DATABASE_URL=empty_url, LOG_FORMAT="console")
    assert (0, "nothing to do: the schema is up to date\n") == (done.returncode, done.stdout), done.stderr
    refused = run_migrate(DATABASE_URL="mysql://h/d", LOG_FORMAT="console")
    assert (2, True) == (refused.returncode, refused.stderr.startswith("mastery: DATABASE_URL"))


def test_a_pipeline_reads_its_own_names(empty_url: str) -> None:
    """LOG_FORMAT holds for the release phase too, for what it does and for why it fails."""
    done = run_migrate(DATABASE_URL=empty_url, LOG_FORMAT="otel")
    assert "migrate.finished" == events(done.stderr)[-1]["body"]
    (why,) = events(run_migrate(DATABASE_URL="mysql://h/d", LOG_FORMAT="ecs").stderr)
    assert ("migrate.failed", "error") == (why["message"], why["log.level"])


def events(output: str) -> list[dict[str, Any]]:
    """The lines of a release's output: each one is an event."""
    return [json.loads(line) for line in output.splitlines()]


def run_migrate(**variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m server migrate` with these variables and no other of ours."""
    return subprocess.run(
        [sys.executable, "-m", "server", "migrate", "--wait", "20"],
        cwd=ROOT,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _has_no_lock(url: str) -> bool:
    return ask(url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]

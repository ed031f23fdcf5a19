"""Migrations: each file once and whole, whoever runs them, however often, and whatever interrupts them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from server.cli.migration_files import MigrationError, read_migrations
from server.cli.migrations import migrate
from server.development import free_port
from tests.cli.releases import NEVER, migrate_at_once, runs, start_migrate, tables, write
from tests.conftest import run_sql
from tests.stores.postgres.databases import ask
from tests.support.waiting import wait_until

APPLIED = "SELECT name FROM schema_migrations ORDER BY name"


def test_files_are_applied_in_order_each_once(empty_url: str, tmp_path: Path) -> None:
    """The first run applies all and tells each, the second has nothing to do, a new file comes on top."""
    told: list[str] = []
    write(tmp_path, m0002_rows="INSERT INTO a VALUES (1)", m0001_table="CREATE TABLE a (x int)")
    (tmp_path / "README.md").write_text("not a migration")
    assert ["0001_table.sql", "0002_rows.sql"] == migrate(
        empty_url, tmp_path, on_applied=lambda name, seconds: told.append(f"{name} {seconds > 0}")
    )
    assert ["0001_table.sql True", "0002_rows.sql True"] == told
    assert [] == migrate(empty_url, tmp_path)
    write(tmp_path, m0003_more="INSERT INTO a VALUES (2)")
    assert ["0003_more.sql"] == migrate(empty_url, tmp_path)
    assert [] == migrate(empty_url, tmp_path)
    assert [(1,), (2,)] == ask(empty_url, "SELECT x FROM a ORDER BY x")


def test_the_services_own_migrations_apply(empty_url: str) -> None:
    """sql/migrations brings an empty database up to date, and twice is once."""
    assert migrate(empty_url)
    assert [] == migrate(empty_url)


def test_a_file_that_fails_leaves_nothing_of_itself(empty_url: str, tmp_path: Path) -> None:
    """What came before stays, of the failed file there is no trace, and the message names file and line."""
    write(
        tmp_path,
        m0001_good="CREATE TABLE good ()",
        m0002_bad="CREATE TABLE half ();\n\nINSERT INTO nowhere VALUES (1);\n",
        m0003_never="CREATE TABLE never ()",
    )
    with pytest.raises(MigrationError, match=r'^0002_bad.sql, line 3: relation "nowhere" does not exist$'):
        migrate(empty_url, tmp_path)
    assert [("0001_good.sql",)] == ask(empty_url, APPLIED)
    assert ["good", "schema_migrations"] == tables(empty_url)
    write(tmp_path, m0002_bad="CREATE TABLE repaired ()")
    assert ["0002_bad.sql", "0003_never.sql"] == migrate(empty_url, tmp_path)


async def test_a_process_killed_in_the_middle_of_a_file_leaves_nothing(
    empty_url: str, tmp_path: Path
) -> None:
    """After SIGKILL there is no half file and no lock that anybody would have to remove."""
    write(tmp_path, m0001_slow=f"CREATE TABLE half (); {NEVER};")
    process = start_migrate(empty_url, tmp_path)
    try:
        await wait_until(lambda: runs(empty_url, NEVER), "the file runs")
    finally:
        process.kill()
        process.communicate()
    ask(
        empty_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600);'"
    )
    write(tmp_path, m0001_slow="CREATE TABLE whole ()")
    assert ["0001_slow.sql"] == migrate(empty_url, tmp_path, wait_seconds=20)
    assert ["schema_migrations", "whole"] == tables(empty_url)


def test_a_changed_file_stops_everything(empty_url: str, tmp_path: Path) -> None:
    """A file that was edited after it had been applied is named, and nothing new is applied."""
    write(tmp_path, m0001_a="CREATE TABLE a ()")
    migrate(empty_url, tmp_path)
    write(tmp_path, m0001_a="CREATE TABLE a (x int)", m0002_b="CREATE TABLE b ()")
    with pytest.raises(MigrationError, match=r"0001_a.sql was changed"):
        migrate(empty_url, tmp_path)
    assert ["a", "schema_migrations"] == tables(empty_url)


def test_a_missing_file_stops_everything(empty_url: str, tmp_path: Path) -> None:
    """A file that was applied and is gone is named, with every other problem, and nothing new is applied."""
    write(tmp_path, m0001_a="CREATE TABLE a ()", m0002_b="CREATE TABLE b ()", m0003_c="CREATE TABLE c ()")
    migrate(empty_url, tmp_path)
    (tmp_path / "0002_b.sql").rename(tmp_path / "0002_other.sql")
    write(tmp_path, m0001_a="CREATE TABLE changed ()")
    with pytest.raises(MigrationError, match=r"0002_b.sql .*gone.*; 0001_a.sql was changed"):
        migrate(empty_url, tmp_path)


def test_line_ends_of_a_checkout_are_no_change(empty_url: str, tmp_path: Path) -> None:
    """The same file with Windows line ends has the same digest."""
    write(tmp_path, m0001_a="CREATE TABLE a (\n)")
    migrate(empty_url, tmp_path)
    (tmp_path / "0001_a.sql").write_bytes(b"CREATE TABLE a (\r\n)")
    assert [] == migrate(empty_url, tmp_path)


def test_a_new_file_below_an_applied_one_is_refused(empty_url: str, tmp_path: Path) -> None:
    """A file that would have to run before one that has run already (a merge of two branches) is refused."""
    write(tmp_path, m0001_a="CREATE TABLE a ()", m0002_c="CREATE TABLE c ()")
    migrate(empty_url, tmp_path)
    (tmp_path / "0002_c.sql").rename(tmp_path / "0003_c.sql")
    write(tmp_path, m0002_b="CREATE TABLE b ()")
    run_sql(empty_url, "UPDATE schema_migrations SET name = '0003_c.sql' WHERE name = '0002_c.sql'")
    with pytest.raises(MigrationError, match=r"0002_b.sql is new but 0003_c.sql has been applied"):
        migrate(empty_url, tmp_path)
    assert ["a", "c", "schema_migrations"] == tables(empty_url)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0001_a", "0003_c"], "0003_c.sql: expected number 0002"),
        (["0001_a", "0001_b"], "0001_b.sql: expected number 0002"),
        (["0000_a"], "0000_a.sql: expected number 0001"),
        (["1_a"], "1_a.sql: expected a name such as"),
        (["0001_A"], "0001_A.sql: expected a name such as"),
        (["0001"], "0001.sql: expected a name such as"),
    ],
)
def test_names_are_numbers_without_gaps_and_words(tmp_path: Path, names: list[str], message: str) -> None:
    """A gap, a number used twice and a name without words are refused before any connection."""
    write(tmp_path, **dict.fromkeys(names, "SELECT 1"))
    with pytest.raises(MigrationError, match=message):
        read_migrations(tmp_path)


@pytest.mark.parametrize("sql", ["SELECT 1; COMMIT; SELECT 2", "BEGIN;\nSELECT 1;\nEND", "rollback"])
def test_a_file_can_not_end_its_own_transaction(tmp_path: Path, sql: str) -> None:
    """A COMMIT in a file would make half a file possible."""
    write(tmp_path, m0001_a=sql)
    with pytest.raises(MigrationError, match=r"0001_a.sql, line 1: a migration must not begin or end"):
        read_migrations(tmp_path)


def test_bodies_of_functions_may_begin_and_end(empty_url: str, tmp_path: Path) -> None:
    """BEGIN and END in a dollar-quoted body, a string or a comment are no transaction."""
    body = "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  RETURN 1;\nEND\n$$;"
    write(tmp_path, m0001_a=f"-- x; BEGIN\n/* y; COMMIT; */\n{body}\nSELECT '; COMMIT; ', E'\\'; END; ';")
    assert ["0001_a.sql"] == migrate(empty_url, tmp_path)


def test_parallel_releases_apply_each_file_once(empty_url: str, tmp_path: Path) -> None:
    """Four release processes at once: each file is applied by one of them, and none of them fails."""
    write(
        tmp_path,
        m0001_a="CREATE TABLE a (x int); SELECT pg_sleep(0.3)",
        m0002_index="-- no-transaction\nCREATE INDEX CONCURRENTLY a_x ON a (x)",
        m0003_rows="INSERT INTO a VALUES (1)",
    )
    assert ["0001_a.sql", "0002_index.sql", "0003_rows.sql"] == migrate_at_once(empty_url, tmp_path, 4)
    assert [(1,)] == ask(empty_url, "SELECT x FROM a")


async def test_waiting_for_another_release_has_an_end(empty_url: str, tmp_path: Path) -> None:
    """A process that holds the lock for too long is reported instead of waited for without end."""
    write(tmp_path, m0001_slow=f"{NEVER};")
    process = start_migrate(empty_url, tmp_path)
    try:
        await wait_until(lambda: runs(empty_url, NEVER), "the file runs")
        with pytest.raises(MigrationError, match=r"another process is migrating .*; gave up after 0.2 s$"):
            migrate(empty_url, tmp_path, wait_seconds=0.2)
    finally:
        process.kill()
        process.communicate()


def test_deploy_14_a_table_in_use_is_not_waited_for_without_end(empty_url: str, tmp_path: Path) -> None:
    """A busy table fails the file in the end, in many short waits and not in a long one."""
    write(tmp_path, m0001_a="CREATE TABLE a ()")
    migrate(empty_url, tmp_path)
    write(tmp_path, m0002_b="ALTER TABLE a ADD COLUMN x int")
    with closing(psycopg2.connect(empty_url)) as busy, busy.cursor() as cursor:
        cursor.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        with pytest.raises(
            MigrationError, match=r"0002_b.sql: canceling statement due to lock timeout; gave up after 1 s$"
        ):
            migrate(empty_url, tmp_path, lock_timeout_ms=50, wait_seconds=1)
    assert ["0002_b.sql"] == migrate(empty_url, tmp_path)


async def test_deploy_14_a_file_waits_for_an_open_reader_and_lets_others_pass(
    empty_url: str, tmp_path: Path
) -> None:
    """While a dump reads the table, the file gives up its place in the queue again and again; then it is applied."""
    write(tmp_path, m0001_a="CREATE TABLE a ()")
    migrate(empty_url, tmp_path)
    write(tmp_path, m0002_b="ALTER TABLE a ADD COLUMN x int")
    queues = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER%'"
    with closing(psycopg2.connect(empty_url)) as dump, dump.cursor() as cursor:
        cursor.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        process = start_migrate(empty_url, tmp_path)
        try:
            for _ in range(2):
                await wait_until(lambda: ask(empty_url, queues) == [(1,)], "the file waits for the table")
                await wait_until(lambda: ask(empty_url, queues) == [(0,)], "the file has left the queue")
                assert [] == ask(empty_url, "SELECT FROM a")
            dump.rollback()
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (0, "['0002_b.sql']") == (process.returncode, output.strip().splitlines()[-1]), errors


def test_an_interrupted_concurrent_index_is_built_again(empty_url: str, tmp_path: Path) -> None:
    """What a failed CREATE INDEX CONCURRENTLY leaves, an invalid index, is dropped and built anew."""
    run_sql(empty_url, "CREATE TABLE a (x int)")
    run_sql(empty_url, "INSERT INTO a VALUES (1), (1), (2)")
    write(
        tmp_path,
        m0001_indexes="-- no-transaction\nCREATE INDEX CONCURRENTLY a_x ON a (x);\n"
        "-- One row a value; from here on.\nCREATE UNIQUE INDEX CONCURRENTLY a_x_unique ON a (x);\n",
    )
    with pytest.raises(MigrationError, match=r"0001_indexes.sql, line 4: could not create unique index"):
        migrate(empty_url, tmp_path)
    validity = (
        "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid "
        "WHERE relname LIKE 'a\\_%' ORDER BY relname"
    )
    assert [("a_x", True), ("a_x_unique", False)] == ask(empty_url, validity)
    assert [] == ask(empty_url, APPLIED)
    run_sql(empty_url, "DELETE FROM a WHERE x = 1")
    assert ["0001_indexes.sql"] == migrate(empty_url, tmp_path)
    assert [("a_x", True), ("a_x_unique", True)] == ask(empty_url, validity)


def test_deploy_14_batches_go_on_where_the_one_before_ended(empty_url: str, tmp_path: Path) -> None:
    """Each batch is a transaction, begins behind the last row of the one before, and the last one finds nothing."""
    write(
        tmp_path,
        m0001_a="CREATE TABLE a (x int, batch xid8); CREATE TABLE b (LIKE a);"
        "INSERT INTO a SELECT generate_series(1, 7)",
        m0002_batches="-- batched\n-- Three at a time, not %% of them.\n"
        "WITH batch AS (SELECT x FROM a WHERE x > coalesce(%(after)s::int, 0) ORDER BY x LIMIT 3),\n"
        "     copied AS (INSERT INTO b SELECT x, pg_current_xact_id() FROM batch)\n"
        "SELECT x FROM batch ORDER BY x;\n"
        "DELETE FROM a WHERE x IN (SELECT x FROM a WHERE x <> 7 LIMIT 2);\n",
    )
    assert 2 == len(migrate(empty_url, tmp_path))
    assert [(1, 3), (4, 3), (7, 1)] == ask(
        empty_url, "SELECT min(x), count(*) FROM b GROUP BY batch ORDER BY 1"
    )
    assert [(7,)] == ask(empty_url, "SELECT x FROM a")


async def test_deploy_14_a_batch_waits_for_a_row_and_repeats_nothing(empty_url: str, tmp_path: Path) -> None:
    """A batch that meets a locked row gives up after a moment, and is tried again; those before it stay done."""
    write(
        tmp_path,
        m0001_a="CREATE TABLE a (x int, times int DEFAULT 0); INSERT INTO a SELECT generate_series(1, 6)",
        m0002_batches="-- batched\n"
        "WITH batch AS (UPDATE a SET times = times + 1"
        " WHERE x IN (SELECT x FROM a WHERE x > coalesce(%(after)s::int, 0) ORDER BY x LIMIT 2) RETURNING x)\n"
        "SELECT x FROM batch ORDER BY x",
    )
    first = tmp_path / "first"
    first.mkdir()
    write(first, m0001_a=(tmp_path / "0001_a.sql").read_text())
    migrate(empty_url, first)
    with closing(psycopg2.connect(empty_url)) as writer, writer.cursor() as cursor:
        cursor.execute("SELECT FROM a WHERE x = 4 FOR UPDATE")
        process = start_migrate(empty_url, tmp_path)
        try:
            await wait_until(
                lambda: ask(empty_url, "SELECT times FROM a WHERE x = 1") == [(1,)], "a batch is done"
            )
            await wait_until(lambda: runs(empty_url, "UPDATE a SET times"), "the next one waits")
            await wait_until(lambda: not runs(empty_url, "UPDATE a SET times"), "it has given up")
            writer.rollback()
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert 0 == process.returncode, errors
    assert [(1, 6)] == ask(empty_url, "SELECT times, count(*) FROM a GROUP BY times")


async def test_deploy_14_an_index_is_built_while_another_release_waits(
    empty_url: str, tmp_path: Path
) -> None:
    """CREATE INDEX CONCURRENTLY waits for no lock of ours: that of its own process, and those that ask for it."""
    write(
        tmp_path,
        m0001_a="CREATE TABLE a (x int); INSERT INTO a VALUES (1)",
        m0002_index="-- no-transaction\nCREATE INDEX CONCURRENTLY a_x ON a (x)",
        m0003_more="INSERT INTO a VALUES (2)",
    )
    with closing(psycopg2.connect(empty_url)) as reader, reader.cursor() as cursor:
        first = tmp_path / "first"
        first.mkdir()
        write(first, m0001_a=(tmp_path / "0001_a.sql").read_text())
        migrate(empty_url, first)
        reader.set_session(isolation_level="REPEATABLE READ")
        cursor.execute("SELECT FROM a")
        releases = [start_migrate(empty_url, tmp_path) for _ in range(2)]
        try:
            await wait_until(lambda: runs(empty_url, "CREATE INDEX CONCURRENTLY"), "the index is being built")
            reader.rollback()
            outputs = [release.communicate(timeout=60) for release in releases]
        finally:
            for release in releases:
                release.kill()
    assert [0, 0] == [release.returncode for release in releases], outputs
    assert [(1,), (2,)] == ask(empty_url, "SELECT x FROM a ORDER BY x")


def test_a_database_that_is_away_is_one_sentence() -> None:
    """Without a server the error says so, and holds no password."""
    with pytest.raises(MigrationError, match=r"no connection to the database: .*refused") as caught:
        migrate(f"postgresql://mastery:hunter2@127.0.0.1:{free_port()}/mastery")
    assert "hunter2" not in str(caught.value)

"""The baseline: new databases begin with it, and those that began before are taken for one that has it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from server.cli.migration_files import REPLACED_FOLDER, MigrationError, read_migrations
from server.cli.migrations import migrate
from tests.cli.releases import migrate_at_once, tables, write
from tests.conftest import run_sql
from tests.stores.postgres.databases import ask

REPLACED = {
    "m0001_a": "CREATE TABLE a (x int)",
    "m0002_b": "CREATE TABLE b (x int)",
    "m0003_c": "ALTER TABLE b ADD y int",
}
BASELINE = {
    "m0004_a": "-- baseline\nCREATE TABLE a (x int)",
    "m0005_b": "-- baseline\nCREATE TABLE b (x int, y int)",
}
LATER = {"m0006_d": "CREATE TABLE d ()"}
ALL = [f"{name.removeprefix('m')}.sql" for name in REPLACED | BASELINE | LATER]
OWN = ["a", "b", "d", "schema_migrations"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of this release: a baseline of two files, the three that it has replaced, and a later one."""
    (tmp_path / "present" / REPLACED_FOLDER).mkdir(parents=True)
    write(tmp_path / "present" / REPLACED_FOLDER, **REPLACED)
    return write(tmp_path / "present", **BASELINE, **LATER)


def older(tmp_path: Path, count: int) -> Path:
    """The files of a release before the baseline, so many of them."""
    (tmp_path / "older").mkdir(exist_ok=True)
    return write(tmp_path / "older", **dict(list(REPLACED.items())[:count]))


def history(url: str) -> list[str]:
    return [name for (name,) in ask(url, "SELECT name FROM schema_migrations ORDER BY name")]


def test_the_numbers_go_on_from_the_replaced_files(folder: Path) -> None:
    """The two folders are one sequence without a gap."""
    assert ALL == [one.name for one in read_migrations(folder)]
    (folder / REPLACED_FOLDER / "0002_b.sql").unlink()
    with pytest.raises(MigrationError, match=r"0003_c.sql: expected number 0002"):
        read_migrations(folder)


def test_a_new_database_runs_the_baseline_alone(empty_url: str, folder: Path, tmp_path: Path) -> None:
    """The replaced files are remembered as applied, so that a release before the baseline has nothing to do there."""
    assert ALL[3:] == migrate(empty_url, folder)
    assert OWN == tables(empty_url)
    assert ALL == history(empty_url)
    assert [] == migrate(empty_url, folder)
    assert [] == migrate(empty_url, older(tmp_path, 3))


@pytest.mark.parametrize("applied", [1, 2, 3])
def test_a_database_that_began_before_is_brought_forward(
    empty_url: str, folder: Path, tmp_path: Path, applied: int
) -> None:
    """It gets the replaced files that are missing, none of the baseline, and what came later; its rows stay."""
    migrate(empty_url, older(tmp_path, applied))
    run_sql(empty_url, "INSERT INTO a VALUES (7)")
    assert [*ALL[applied:3], ALL[5]] == migrate(empty_url, folder)
    assert OWN == tables(empty_url)
    assert ALL == history(empty_url)
    assert [(7,)] == ask(empty_url, "SELECT x FROM a")
    assert [] == migrate(empty_url, folder)
    assert [] == migrate(empty_url, older(tmp_path, 3))


def test_an_interrupted_baseline_goes_on(empty_url: str, folder: Path) -> None:
    """A new database that has a part of the baseline is not taken for an older one."""
    write(folder, m0005_b="-- baseline\nINSERT INTO nowhere VALUES (1)")
    with pytest.raises(MigrationError, match=r"0005_b.sql, line 2: relation"):
        migrate(empty_url, folder)
    assert [ALL[3]] == history(empty_url)
    write(folder, **BASELINE)
    assert ALL[4:] == migrate(empty_url, folder)
    assert ALL == history(empty_url)


def test_a_replaced_file_that_is_another_is_refused(empty_url: str, folder: Path, tmp_path: Path) -> None:
    """A database is taken for one of the baseline by the digests of its files; another one is left as it is."""
    migrate(empty_url, write(older(tmp_path, 3), m0002_b="CREATE TABLE b (x text)"))
    with pytest.raises(MigrationError, match=r"^0002_b.sql was changed after it had been applied"):
        migrate(empty_url, folder)
    assert ALL[:3] == history(empty_url)


def test_tables_in_use_are_not_waited_for(empty_url: str, folder: Path, tmp_path: Path) -> None:
    """To be taken for one that has the baseline, a database locks no table but schema_migrations."""
    migrate(empty_url, older(tmp_path, 3))
    (folder / "0006_d.sql").unlink()
    with closing(psycopg2.connect(empty_url)) as busy, busy.cursor() as cursor:
        cursor.execute("LOCK TABLE a, b IN ACCESS EXCLUSIVE MODE")
        assert [] == migrate(empty_url, folder, lock_timeout_ms=50, wait_seconds=0)
    assert ALL[:5] == history(empty_url)


@pytest.mark.parametrize("applied", [0, 2, 3])
def test_parallel_releases_take_one_way(empty_url: str, folder: Path, tmp_path: Path, applied: int) -> None:
    """Four release processes at once, on a new database and on older ones: each file once, and none of them fails."""
    if applied:
        migrate(empty_url, older(tmp_path, applied))
    expected = [*ALL[applied:3], ALL[5]] if applied else ALL[3:]
    assert expected == migrate_at_once(empty_url, folder, 4)
    assert OWN == tables(empty_url)
    assert ALL == history(empty_url)

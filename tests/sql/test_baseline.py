"""The baseline makes the very database that the files before it make, whichever of them a database has already."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from server.cli.migration_files import MIGRATIONS_FOLDER, REPLACED_FOLDER, read_migrations
from server.cli.migrations import migrate
from tests.sql.catalog import describe
from tests.stores.postgres.databases import ask

REPLACED = sorted((MIGRATIONS_FOLDER / REPLACED_FOLDER).glob("*.sql"))
APPLIED = "SELECT name, sha256 FROM schema_migrations ORDER BY name"


def copied(folder: Path, count: int) -> Path:
    """The files of a release that had so many, before the baseline."""
    for file in REPLACED[:count]:
        shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize("count", range(1, len(REPLACED) + 1))
def test_every_older_database_becomes_the_one_of_the_baseline(
    database_url: str, empty_url: str, tmp_path: Path, count: int
) -> None:
    """From whichever of the replaced files it comes: the same objects, columns in their order, texts and comments."""
    assert count == len(migrate(empty_url, copied(tmp_path, count)))
    migrate(empty_url)
    assert describe(database_url) == describe(empty_url)
    everything = [(one.name, one.sha256) for one in read_migrations()]
    assert everything == ask(empty_url, APPLIED)
    assert everything == ask(database_url, APPLIED)


def test_a_release_before_the_baseline_has_nothing_to_do(database_url: str, tmp_path: Path) -> None:
    """After a rollback its own `migrate` finds all that it knows of, with the digests that it knows."""
    for count in range(1, len(REPLACED) + 1):
        assert [] == migrate(database_url, copied(tmp_path, count))

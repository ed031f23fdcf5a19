"""The benchmark of the migrations applies them all under load, and has a line for each."""

from __future__ import annotations

from bench.migrations import measure_migrations
from server.cli.migrations import MIGRATIONS_FOLDER


def test_deploy_14_every_migration_is_measured_under_load() -> None:
    """Each file from the fourth on is applied while clients rate, read and sign up, and none of them fails."""
    waits = measure_migrations(rows=1000, reader_seconds=0)
    assert [one.name for one in waits] == [file.name for file in sorted(MIGRATIONS_FOLDER.glob("*.sql"))[3:]]
    assert all(min(one.rating, one.reading, one.signing_up) > 0 for one in waits)

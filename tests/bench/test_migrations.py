"""The benchmark of the migrations applies them all under load, and has a line for each."""

from __future__ import annotations

import pytest

from bench.migrations import measure_migrations
from server.cli.migration_files import read_migrations


@pytest.mark.long
def test_deploy_14_every_migration_is_measured_under_load() -> None:
    """Each file from the fourth on is applied while clients rate, read and sign up, and none of them fails."""
    waits = measure_migrations(rows=1000, reader_seconds=0)
    expected = [one.name for one in read_migrations()[3:] if one.kind != "baseline"]
    assert expected == [one.name for one in waits]
    assert all(min(one.rating, one.reading, one.signing_up) > 0 for one in waits)

"""A real PgBouncer in transaction mode, for tests; they are skipped where it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.harness.pooler import PoolerMissing, pooler
from tests.support.programs import for_want_of


@contextmanager
def pgbouncer(folder: Path, database_url: str, **settings: str) -> Iterator[str]:
    """The URL of a database behind a pooler of its own, as long as the block lasts. Arguments as `pooler`."""
    try:
        with pooler(folder, database_url, **settings) as running:
            yield running.url
    except PoolerMissing as reason:
        installed = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
        pytest.skip(str(reason) if installed else for_want_of("pgbouncer"))

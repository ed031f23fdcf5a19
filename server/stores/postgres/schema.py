"""Compares the database's schema with the code. While the schema is older, no query of the service runs.

Half of the queries might work on an older schema, and some of these would store rows that a missing trigger or column
should have completed. So none runs until the migrations have been applied, which is noticed within a second.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from server.files import ROOT
from server.stores.postgres.database import Database, DatabaseUnavailable
from server.tasks import Periodic

log = structlog.get_logger(__name__)

MIGRATIONS_FOLDER = ROOT / "sql" / "migrations"
_COMMAND = "python -m server migrate"


class SchemaWatch(Periodic):
    """Compares the applied migrations with those of the code, until none is missing.

    A schema that is newer than the code is fine: each migration works with the release before it. A query that misses
    a table or a column has the comparison made again.

    Args:
        database: is blocked while the schema is older, or not known yet.
        folder: the migrations' files.
        interval_seconds: the pause between two comparisons while something is missing.
    """

    def __init__(
        self, database: Database, *, folder: Path = MIGRATIONS_FOLDER, interval_seconds: float = 1.0
    ) -> None:
        super().__init__("schema-watch", interval_seconds=interval_seconds)
        self._database = database
        self._required = frozenset(path.name for path in folder.glob("*.sql"))
        self._missing: frozenset[str] = frozenset()
        self._doubted = asyncio.Event()
        database.on_schema_error = self._doubted.set

    @property
    def is_outdated(self) -> bool:
        """Whether migrations are known to be missing."""
        return bool(self._missing)

    async def start(self) -> None:
        """Compare once before the first query, then go on in the background."""
        await self._compare(is_first=True)
        await super().start()

    async def once(self) -> None:
        """Compare, once there is a reason to: something is missing, or a query missed a table or a column."""
        if self._database.blocked_by is None:
            await self._doubted.wait()
        self._doubted.clear()
        await self._compare()

    async def _compare(self, *, is_first: bool = False) -> None:
        try:
            missing = self._required - await self._database.applied_migrations()
        except DatabaseUnavailable as error:
            # A schema that was seen to be current stays so while the server is down.
            if is_first or self._database.blocked_by is not None:
                self._database.blocked_by = error.reason
            return
        if missing and missing != self._missing:
            log.error(
                "database.schema_outdated",
                missing=sorted(missing),
                detail=f"the schema is older than the code; run `{_COMMAND}`: this service waits for it",
            )
        elif self._missing and not missing:
            log.info("database.schema_current")
        self._missing = missing
        self._database.blocked_by = "schema" if missing else None

"""The database by its public face."""

from __future__ import annotations

from server.stores.database import Database


async def test_a_query_answers(database: Database) -> None:
    """A named query gives its rows as dicts."""
    assert [{"answer": 1}] == await database.fetch_all("ping")

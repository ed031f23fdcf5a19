"""Imports: what a database that can not do it is taken for."""

from __future__ import annotations

import pytest

from server.domain.catalog.deck_files import pack_deck
from server.domain.editing.imports import import_cards
from server.stores.postgres.database import DatabaseReadOnly
from tests.api.conftest import Course
from tests.domain.conftest import Domain


async def test_an_import_that_is_refused_did_not_take_too_long(domain: Domain, course: Course) -> None:
    """That a database takes no writes is said as it is, and not as a reason to send the file in parts."""
    name = domain.url.rpartition("/")[2]
    domain.sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    domain.database.pool.renew()
    deck = pack_deck(b"Q\tA\n", "tsv")
    with pytest.raises(DatabaseReadOnly):
        await domain.writer.run(lambda unit: import_cards(unit, course.decks["Law"], deck, timeout_ms=60_000))

"""The frame of every write to the course: one transaction, then nobody reads the old pages any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from server.errors import InvalidInput
from server.stores.cache import Cache
from server.stores.database import ConstraintViolated, Database, DatabaseUnavailable, Transaction

Result = TypeVar("Result")
# Runs in the transaction and adds to the set the cache keys that its changes make stale; it may run twice.
Work = Callable[[Transaction, set[str]], Awaitable[Result]]

# What the client got wrong when one of these constraints stops a write.
_FIELD_ERRORS: Mapping[str, dict[str, str]] = {
    "decks_class_id_fkey": {"classId": "There is no such class."},
    "flashcards_deck_id_fkey": {"deckId": "There is no such deck."},
}


@dataclass(frozen=True, slots=True)
class Edited:
    """A row after its change, and the columns that really changed."""

    row: dict[str, Any]
    changed: frozenset[str]


class CatalogWriter:
    """Runs writes to the course."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache

    async def run(self, work: Work[Result]) -> Result:
        """Run the work in a transaction; after its commit and before the answer, invalidate what it made stale.

        Raises:
            InvalidInput: it refers to a class or a deck that is not there.
            MasteryError: what the work raises.
        """
        stale: set[str] = set()

        async def attempt(transaction: Transaction) -> Result:
            stale.clear()
            return await work(transaction, stale)

        try:
            result = await self._database.run_transaction(attempt)
        except DatabaseUnavailable as error:
            if error.outcome_unknown:
                await self._cache.invalidate(stale)
            raise
        except ConstraintViolated as error:
            if error.constraint_name in _FIELD_ERRORS:
                raise InvalidInput(errors=_FIELD_ERRORS[error.constraint_name]) from error
            raise
        await self._cache.invalidate(stale)
        return result

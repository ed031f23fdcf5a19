"""The unit of work: all that a write does happens in one transaction, and what follows from it after the commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from server.domain.turns import Turns
from server.stores.cache.cache import Cache
from server.stores.cache.invalidation import Successor
from server.stores.postgres.database import Database, Transaction

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Unit:
    """A write under way.

    Args:
        transaction: where all of it happens.
        cache: to see what it holds of what is going to change.
        stale: to be filled with the cache keys of what it changes.
        successors: to be filled with the new values of some of them, where the unit knows them.
        afterwards: to be filled with what is to be done once it is certain to have happened, such as audit lines.
    """

    transaction: Transaction
    cache: Cache
    stale: set[str] = field(default_factory=set)
    successors: dict[str, Successor] = field(default_factory=dict)
    afterwards: list[Callable[[], None]] = field(default_factory=list)


class Writer:
    """Runs writes, from the first statement to the last consequence.

    Args:
        database: where they happen.
        cache: what they make stale.
        wait_seconds: how long a user's write waits for the others of that user; of these, no more go on at once than
            half of the pool's connections, and two are enough: one has the user's row, and one is on its way there.
    """

    def __init__(self, database: Database, cache: Cache, *, wait_seconds: float = 5.0) -> None:
        self._database = database
        self._cache = cache
        self._turns = Turns(at_once=max(1, min(2, database.pool_limit // 2)), wait_seconds=wait_seconds)

    async def run(self, work: Callable[[Unit], Awaitable[Result]], *, user_id: UUID | None = None) -> Result:
        """Do the work in a transaction, when it is the user's turn; afterwards nobody reads what it made stale.

        Args:
            work: may run twice (after a deadlock, or a connection that was lost), each time on a unit of its own.
            user_id: who writes; None where nobody's row is locked.

        Raises:
            TooManyAtOnce: the user's other writes take too long.
            MasteryError: what the work raises; nothing has happened then.
            DatabaseUnavailable: it may have happened, if `outcome_unknown` says so.
        """
        if user_id is None:
            return await self._run(work)
        await self._turns.take(user_id)
        try:
            return await self._run(work)
        finally:
            self._turns.give_back(user_id)

    async def _run(self, work: Callable[[Unit], Awaitable[Result]]) -> Result:
        """Do the work in a transaction; after the commit, and before this returns, nobody reads what it made stale."""
        unit: Unit | None = None
        is_committed = False

        async def attempt(transaction: Transaction) -> Result:
            nonlocal unit
            unit = Unit(transaction, self._cache)
            return await work(unit)

        try:
            result = await self._database.run_transaction(attempt)
            is_committed = True
        finally:
            if unit is not None:
                # Also when the answer to COMMIT was lost, or nobody waits for ours any more; but then without values
                # that may have never come to be.
                await self._cache.invalidate(unit.stale, unit.successors if is_committed else None)
        for action in [] if unit is None else unit.afterwards:
            action()
        return result

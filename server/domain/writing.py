"""The unit of work: all that a write does happens in one transaction, and what follows from it after the commit.

A write with an `Idempotency-Key` happens once, however often it is sent (draft-ietf-httpapi-idempotency-key-header-07).
The first statement of its transaction takes the key, and the last one stores the answer. So a key has an answer exactly
if its write has happened, whatever crashes in between. The same write sent at the same time waits for the key: it gets
the answer or, if the first one fails, takes its place.

What a write refers to may be deleted after it was checked. A violated foreign key is then reported as not found.

Of the writes that one user sends at the same time, only a few run at once. The others wait their turn without a
connection to the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import structlog

from server.errors import AccountGone, MasteryError, NotFound, ServiceUnavailable
from server.stores.cache.cache import Cache
from server.stores.cache.values import Successor
from server.stores.postgres.database import ConstraintViolated, Database, DatabaseUnavailable, Transaction

log = structlog.get_logger(__name__)


class TooManyAtOnce(ServiceUnavailable):
    """Too many of your writes are under way; try again shortly."""

    code = "too_many_at_once"


class Turns:
    """Lets at most so many of a user's writes go on at once, in the order in which they came.

    The writes of a user happen one after another: each begins with the lock of the user's row. Whatever waits for that
    row holds a connection, so what could only wait there waits here.

    Args:
        at_once: how many of a user may go on.
        wait_seconds: how long the others wait.
    """

    def __init__(self, *, at_once: int, wait_seconds: float) -> None:
        self._at_once = at_once
        self._wait_seconds = wait_seconds
        self._under_way: dict[UUID, int] = {}
        self._lines: dict[UUID, deque[asyncio.Future[None]]] = {}

    async def take(self, user_id: UUID) -> None:
        """Wait for a turn; `give_back` ends it.

        Raises:
            TooManyAtOnce: it did not come in time.
        """
        count = self._under_way.get(user_id, 0)
        if count < self._at_once:
            self._under_way[user_id] = count + 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(user_id, deque()).append(turn)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came together with the end of the waiting
                self.give_back(user_id)
            if isinstance(error, TimeoutError):
                raise TooManyAtOnce from None
            raise

    def give_back(self, user_id: UUID) -> None:
        """End a turn: the next in line gets it."""
        line = self._lines.get(user_id)
        while line:
            turn = line.popleft()
            if not line:
                del self._lines[user_id]
            if not turn.done():
                turn.set_result(None)
                return
        count = self._under_way[user_id] - 1
        if count:
            self._under_way[user_id] = count
        else:
            del self._under_way[user_id]


@contextmanager
def vanished_as_not_found() -> Iterator[None]:
    """Inside, a violated foreign key is answered as a request a moment later would be.

    Raises:
        NotFound: a card or a deck is gone.
        AccountGone: the user is.
    """
    try:
        yield
    except ConstraintViolated as error:
        name = error.constraint_name
        if name.endswith("_flashcard_id_fkey"):
            raise NotFound("There is no such card.") from error
        if name.endswith("_deck_id_fkey"):
            raise NotFound("There is no such deck.") from error
        if name.endswith("_user_id_fkey"):
            raise AccountGone from error
        raise


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Consequences:
    """What follows from a write once it is certain to have happened.

    Args:
        cache: to see what it holds of what is going to change.
        stale: to be filled with the cache keys of what it changes.
        successors: to be filled with the new values of some of them, where the unit knows them.
        afterwards: to be filled with what is to be done once it is certain to have happened, such as audit lines.
    """

    cache: Cache
    stale: set[str] = field(default_factory=set)
    successors: dict[str, Successor] = field(default_factory=dict)
    afterwards: list[Callable[[], None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit(Consequences):
    """A write under way. Args: transaction: where all of it happens; the others as in Consequences."""

    transaction: Transaction


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
        self.cache = cache
        self._turns = Turns(at_once=max(1, min(2, database.pool.size // 2)), wait_seconds=wait_seconds)

    async def run(self, work: Callable[[Unit], Awaitable[Result]], *, user_id: UUID | None = None) -> Result:
        """Do the work in a transaction, when it is the user's turn; afterwards no reader gets what it made stale.

        Args:
            work: may run twice (after a deadlock, or a connection that was lost), each time on a unit of its own.
            user_id: whose write it is; None where no user's row is locked.

        Raises:
            TooManyAtOnce: the user's other writes take too long.
            MasteryError: what the work raises; nothing has happened then.
            DatabaseUnavailable: it may have happened, if `outcome_unknown` says so.
        """

        async def run(note: Callable[[Unit], None]) -> Result:
            async def attempt(transaction: Transaction) -> Result:
                unit = Unit(cache=self.cache, transaction=transaction)
                note(unit)
                return await work(unit)

            return await self._database.run_transaction(attempt)

        return await self._in_turn(run, user_id)

    async def run_statement(
        self,
        work: Callable[[Consequences], Awaitable[Result]],
        *,
        user_id: UUID | None,
        is_repeatable: bool = False,
    ) -> Result:
        """The same for work that writes with a single statement, which is a transaction by itself.

        Args:
            work: may run twice, as above.
            user_id: whose write it is.
            is_repeatable: whether it may be run again though it may have happened: under a key it happens once.

        Raises: as `run`.
        """

        async def run(note: Callable[[Consequences], None]) -> Result:
            async def attempt() -> Result:
                consequences = Consequences(self.cache)
                note(consequences)
                return await work(consequences)

            try:
                return await attempt()
            except DatabaseUnavailable as error:
                if not (error.retryable or (is_repeatable and error.reason == "closed")):
                    raise
                log.info("database.transaction_retried", error=error.reason)
            return await attempt()

        return await self._in_turn(run, user_id)

    async def _in_turn(
        self, run: Callable[[Callable[[Consequences], None]], Awaitable[Result]], user_id: UUID | None
    ) -> Result:
        if user_id is None:
            return await self._run(run)
        await self._turns.take(user_id)
        try:
            return await self._run(run)
        finally:
            self._turns.give_back(user_id)

    async def _run(self, run: Callable[[Callable[[Consequences], None]], Awaitable[Result]]) -> Result:
        """Run a write that notes its consequences; once it returns, no reader gets what it made stale."""
        noted: Consequences | None = None
        is_committed = False

        def note(consequences: Consequences) -> None:
            nonlocal noted
            noted = consequences

        try:
            result = await run(note)
            is_committed = True
        finally:
            if noted is not None:
                # Also when the answer to COMMIT was lost, or the client has hung up; but then without successors,
                # which may hold what was never committed.
                await self.cache.invalidate(noted.stale, noted.successors if is_committed else None)
        for action in [] if noted is None else noted.afterwards:
            action()
        return result


class IdempotencyKeyReused(MasteryError):
    """This Idempotency-Key belongs to another request of the last 24 hours: take a new one for each new request."""

    status = 422
    code = "idempotency_key_reused"
    title = "Unprocessable Content"


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A write that its sender may repeat: whose it is, under which key, and the SHA-256 of what it asks for."""

    user_id: UUID
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a write answers: an HTTP status, a JSON body or none, and where to find what it has made."""

    status: int
    body: bytes | None = None
    location: str | None = None
    # Whether it was given before, and nothing was changed now.
    is_replay: bool = False


Work = Callable[[Unit], Awaitable[Answer]]


async def answer_once(unit: Unit, request: KeyedRequest, work: Work) -> Answer:
    """Do the work, unless it has been done under this key in the last 24 hours: then its answer of that time.

    Raises:
        IdempotencyKeyReused: the key was used for another request.
        AccountGone: the user no longer exists.
        MasteryError: what the work raises; the key stays free.
    """
    with vanished_as_not_found():
        row = await unit.transaction.fetch_one(
            "claim_idempotency_key", user_id=request.user_id, key=request.key, fingerprint=request.fingerprint
        )
    if row is None:
        raise RuntimeError("claim_idempotency_key gave no row")
    if row["fingerprint"] != request.fingerprint:
        raise IdempotencyKeyReused
    if row["status"] is not None:
        unit.stale.update(row["stale"])  # the first one may have died before it could say so
        return Answer(status=row["status"], body=row["body"], location=row["location"], is_replay=True)
    answer = await work(unit)
    await unit.transaction.execute(
        "keep_idempotent_answer",
        user_id=request.user_id,
        key=request.key,
        status=answer.status,
        location=answer.location,
        body=answer.body,
        stale=sorted(unit.stale),
    )
    return answer

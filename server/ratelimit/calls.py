"""Decisions by Redis: one script call for a request or, on a Cluster, one for each of its subjects."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from server.ratelimit import scripts
from server.ratelimit.policies import Charge
from server.ratelimit.prepared import MAX_CHARGES, PreparedCharges
from server.ratelimit.scripts import Answers
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


class Calls:
    """The limiter's scripts, all or nothing even where one call can't be.

    Args:
        link: to Redis.
        deadline_ms: of each call.
        log_entries: admissions that a window remembers one by one.
        keep_ms: how long the decision on a request id is remembered, milliseconds.
        one_subject_a_call: two subjects' keys live in different slots of a Cluster.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        deadline_ms: float,
        log_entries: int,
        keep_ms: int,
        one_subject_a_call: bool,
    ) -> None:
        self._link = link
        self._deadline_ms = deadline_ms
        self._log_entries = log_entries
        self._keep_ms = keep_ms
        self._one_subject_a_call = one_subject_a_call
        self._refunds: set[asyncio.Task[None]] = set()

    async def decide(
        self, charges: PreparedCharges, request_id: str | None, *, deadline_ms: float
    ) -> Answers:
        """Make all charges, or none, in so many milliseconds.

        With several calls, what one has charged is given back when another refuses; in between, for the time
        of a round trip, others may be refused because of it, never admitted.

        Raises:
            RedisUnavailable: Redis, or one of its nodes, did not answer in time.
            RedisReplyError: a script failed.
        """
        if request_id is None and (charges.one_subject or not self._one_subject_a_call):
            call = scripts.prepare_decision(charges, log_entries=self._log_entries)
            return scripts.read_answers(await self._link.run(call, deadline_ms=deadline_ms))
        parts = self._parts(charges)
        if len(parts) == 1:
            return await self._decide(charges, request_id, deadline_ms)
        request_id = request_id or secrets.token_hex(16)
        results = await asyncio.gather(
            *(self._decide(part, request_id, deadline_ms) for part in parts), return_exceptions=True
        )
        answers = [one for one in results if isinstance(one, Answers)]
        if len(answers) == len(parts) and all(one.allowed for one in answers):
            return _joined(charges, parts, answers)
        for part, result in zip(parts, results, strict=True):
            if isinstance(result, Answers) and result.allowed:
                self._give_back(part, request_id)
        errors = [one for one in results if isinstance(one, BaseException)]
        if errors:
            # The one whose outcome is unknown decides what may be done about it.
            raise max(errors, key=lambda error: getattr(error, "outcome_unknown", True))
        return _joined(charges, parts, answers)

    async def peek(self, charges: Sequence[Charge]) -> Answers:
        """What `decide` would answer, about any number of charges; it raises the same."""
        parts = [
            part[first : first + MAX_CHARGES]
            for part in self._parts(charges)
            for first in range(0, len(part), MAX_CHARGES)
        ]
        return _joined(charges, parts, await self._each(parts, self._peek))

    async def refund(self, charges: Sequence[Charge], request_id: str) -> int:
        """Take back what `decide` has charged for a request id, once; the units given back."""

        async def refund_part(part: Sequence[Charge]) -> int:
            return sum(
                await scripts.refund_charges(
                    self._link, charges=part, request_id=request_id, deadline_ms=self._deadline_ms
                )
            )

        return sum(await self._each(self._parts(charges), refund_part))

    async def charge_arrears(self, charges: Sequence[tuple[Charge, int]]) -> None:
        """Charge what was admitted without Redis, of one subject, with ages in microseconds."""
        await scripts.charge_arrears(
            self._link, charges=charges, log_entries=self._log_entries, deadline_ms=self._deadline_ms
        )

    async def close(self) -> None:
        """Wait for refunds in flight; each ends by its deadline."""
        if self._refunds:
            await asyncio.wait(self._refunds)

    async def _decide(self, charges: Sequence[Charge], request_id: str | None, deadline_ms: float) -> Answers:
        return await scripts.decide_charges(
            self._link,
            charges=charges,
            log_entries=self._log_entries,
            request_id=request_id,
            keep_ms=self._keep_ms,
            deadline_ms=deadline_ms,
        )

    async def _peek(self, charges: Sequence[Charge]) -> Answers:
        return await scripts.peek_charges(self._link, charges=charges, deadline_ms=self._deadline_ms)

    async def _each(
        self,
        parts: Sequence[Sequence[Charge]],
        call: Callable[[Sequence[Charge]], Coroutine[Any, Any, Result]],
    ) -> list[Result]:
        if len(parts) == 1:
            return [await call(parts[0])]
        return await asyncio.gather(*map(call, parts))

    def _parts(self, charges: Sequence[Charge]) -> list[Sequence[Charge]]:
        if not self._one_subject_a_call or len(charges) == 1:
            return [charges]
        subjects = dict.fromkeys(charge.subject for charge in charges)
        return [[charge for charge in charges if charge.subject == subject] for subject in subjects]

    def _give_back(self, charges: Sequence[Charge], request_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._refund_quietly(charges, request_id))
        self._refunds.add(task)
        task.add_done_callback(self._refunds.discard)

    async def _refund_quietly(self, charges: Sequence[Charge], request_id: str) -> None:
        try:
            await scripts.refund_charges(
                self._link, charges=charges, request_id=request_id, deadline_ms=self._deadline_ms
            )
        except (RedisUnavailable, RedisReplyError) as error:
            log.warning("rate_limit.refund_lost", error=str(error))


def _joined(
    charges: Sequence[Charge], parts: Sequence[Sequence[Charge]], answers: Sequence[Answers]
) -> Answers:
    """The answers of several calls in the order of the charges."""
    if len(parts) == 1:
        return answers[0]
    by_charge = {
        charge: row
        for part, answer in zip(parts, answers, strict=True)
        for charge, row in zip(part, answer.rows, strict=True)
    }
    return Answers(all(one.allowed for one in answers), tuple(by_charge[charge] for charge in charges))

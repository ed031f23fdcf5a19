"""What an admitted request costs in the end: its charges are given back or changed once its response is known.

Middlewares share this, whatever else they do with a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol, TypeVar

from ..stores.redis.events import get_logger
from ..stores.redis.link import RedisReplyError, RedisUnavailable
from .limiter import Limiter
from .limits import Charging, stays_charged
from .policies import Decision, PreparedCharges

log = get_logger(__name__)


class Answer(Protocol):
    """A response."""

    @property
    def status(self) -> int:
        """Its status."""


SomeAnswer = TypeVar("SomeAnswer", bound=Answer)


class Charged:
    """An admitted request whose charges may change with its response.

    It was charged before its handler ran, so that many at once can't exceed a limit together.

    Args:
        limiter: has decided.
        charges: of the decision.
        request_id: the decision was made with.
        decision: which admitted the request. It is replaced where the request is settled at another cost.
        charging: which requests stay charged, by their response.
    """

    __slots__ = ("_charges", "_charging", "_limiter", "_request_id", "decision")

    def __init__(
        self,
        limiter: Limiter,
        charges: PreparedCharges,
        request_id: str,
        decision: Decision,
        charging: Charging,
    ) -> None:
        self._limiter = limiter
        self._charges = limiter.overridden(charges)
        self._request_id = request_id
        self._charging = charging
        self.decision = decision

    async def run(
        self,
        handle: Callable[[], Awaitable[SomeAnswer]],
        *,
        answers: tuple[type[Exception], ...],
        cost_of: Callable[[], int | None] = lambda: None,
    ) -> SomeAnswer:
        """Return the response, once the request is charged what it says: the client's next one finds it so.

        What the request has at once is given back when its task ends: aiohttp runs each request in a task of its own,
        which ends when the response is written, or the client has gone.

        Args:
            handle: makes the response. A cancelled request stays charged: it may have had its effect.
            answers: the exceptions that stand for a response, of their `status`; any other is answered with 500.
            cost_of: returns what the request has cost in the end, units; None for what it was charged.
        """
        task = asyncio.current_task() if self._charges.leases else None
        if task is not None:
            task.add_done_callback(self._release)
        # Only Redis refunds. What is counted without it stays counted, which errs on the safe side.
        if self.decision.source != "redis":
            return await handle()
        try:
            answer = await handle()
        except Exception as error:
            status = getattr(error, "status", None) if isinstance(error, answers) else None
            await self._settle(status or HTTPStatus.INTERNAL_SERVER_ERROR, cost_of())
            raise
        await self._settle(answer.status, cost_of())
        return answer

    async def _settle(self, status: int, cost: int | None) -> None:
        """If Redis does not answer, the first charges stay: the client has less left than it should for a window."""
        leases, charges = self._charges.leases, self._charges
        is_refunded = not stays_charged(self._charging, status)
        if is_refunded:
            cost = 0
        elif cost is None or all(
            charge.cost == cost for index, charge in enumerate(charges) if index not in leases
        ):
            return
        try:
            # What is limited at once is given back later, when the response has been sent.
            units = await self._limiter.settle(
                charges,
                request_id=self._request_id,
                costs=[None if index in leases else cost for index in range(len(charges))],
            )
        except (RedisUnavailable, RedisReplyError) as error:
            log.warning("rate_limit.refund_lost", error=str(error))
            return
        if not is_refunded:
            self.decision = _settled(self.decision, units)

    def _release(self, _task: object) -> None:
        self._limiter.release(self._charges, request_id=self._request_id, decision=self.decision)


def _settled(decision: Decision, units: tuple[int, ...]) -> Decision:
    """Return a decision with what is left once units were given back or, below 0, charged in addition."""
    return Decision(
        decision.allowed,
        tuple(
            verdict._replace(remaining=min(verdict.limit, max(0, verdict.remaining + back)))
            for verdict, back in zip(decision.verdicts, units, strict=True)
        ),
        decision.source,
    )

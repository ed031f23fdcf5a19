"""What an admitted request costs in the end: by its response, by an error, or at a cost that is known by then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from server.ratelimit import Limiter
from server.ratelimit.limits import Charging
from server.ratelimit.policies import Decision, Policy, charges_of
from server.ratelimit.settlement import Charged

TEN = Policy("ten", 10, 60_000)
CHARGES = charges_of("user:1", TEN, cost=2)


@dataclass
class Answer:
    """A response."""

    status: int


class AnsweredError(Exception):
    """Stands for a response."""

    status = 404


class UpstreamError(Exception):
    """Says what another service has answered; ours is answered 500."""

    status = 404


@pytest.fixture
async def limiter() -> AsyncIterator[Limiter]:
    """One that counts in memory."""
    async with Limiter.from_url("memory://") as limiter:
        yield limiter


async def admitted(limiter: Limiter, charging: Charging) -> Charged:
    """A request that was charged two units."""
    decision = await limiter.decide(CHARGES, request_id="one", is_new=True)
    assert decision.allowed
    return Charged(limiter, CHARGES, "one", decision, charging)


async def left(limiter: Limiter) -> int:
    """The units that are left."""
    return (await limiter.peek(CHARGES)).verdicts[0].remaining


@pytest.mark.parametrize(
    ("charging", "status", "remaining"),
    [
        ("all", 500, 8),
        ("failures", 404, 8),
        ("failures", 200, 10),
        ("successes", 200, 8),
        ("successes", 404, 10),
    ],
)
async def test_a_response_decides_whether_a_request_stays_charged(
    limiter: Limiter, charging: Charging, status: int, remaining: int
) -> None:
    """What the group does not charge is given back before the response is sent."""

    async def handle() -> Answer:
        return Answer(status)

    charged = await admitted(limiter, charging)
    assert await charged.run(handle, answers=()) == Answer(status)
    assert await left(limiter) == remaining


@pytest.mark.parametrize(("error", "remaining"), [(AnsweredError, 8), (UpstreamError, 10)])
async def test_only_an_error_that_stands_for_a_response_has_its_status(
    limiter: Limiter, error: type[Exception], remaining: int
) -> None:
    """An error that merely has a status is our fault, and no failure of the client's."""

    async def handle() -> Answer:
        raise error

    charged = await admitted(limiter, "failures")
    with pytest.raises(error):
        await charged.run(handle, answers=(AnsweredError,))
    assert await left(limiter) == remaining


@pytest.mark.parametrize(("cost", "remaining"), [(None, 8), (2, 8), (5, 5), (0, 10)])
async def test_a_cost_that_is_known_afterwards_is_charged_and_shown(
    limiter: Limiter, cost: int | None, remaining: int
) -> None:
    """The decision then says what is left of it."""

    async def handle() -> Answer:
        return Answer(200)

    charged = await admitted(limiter, "all")
    await charged.run(handle, answers=(), cost_of=lambda: cost)
    assert await left(limiter) == remaining
    assert charged.decision.verdicts[0].remaining == remaining


async def test_what_was_admitted_without_redis_is_not_given_back(limiter: Limiter) -> None:
    """It was never counted there: to give it back would be to give what others have used."""

    async def handle() -> Answer:
        return Answer(404)

    await limiter.decide(CHARGES, request_id="one", is_new=True)
    decision = await limiter.peek(CHARGES)
    alone = Decision(True, decision.verdicts, "open")
    await Charged(limiter, CHARGES, "one", alone, "successes").run(handle, answers=())
    assert await left(limiter) == 8

"""Charges and policies that can't be meant are refused where they are made, with a sentence that says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.policies import MAX_CHARGES, MAX_COST, PreparedCharges
from server.ratelimit.scripts import ChargeState, decide_charges
from tests.ratelimit.simulated_redis import START_US, Simulated, named, result_of

MINUTE = Policy("minute", 100, 60_000)
LONE_SURROGATE = "user:\ud800"


@pytest.mark.parametrize("cost", [0, -1, MAX_COST + 1, 1.5, 1.0, True, "1", None, float("nan"), 10**400])
def test_share_03_a_cost_is_a_positive_integer(cost: Any) -> None:
    """Anything else is refused at once, not inside the call to Redis."""
    with pytest.raises(ValueError, match=r"^a charge's cost is .*, not an integer from 1 to 2147483647$"):
        Charge(MINUTE, "g", "user:1", cost)


@pytest.mark.parametrize("text", [LONE_SURROGATE, b"user:1", None, 1])
def test_share_03_a_subject_and_a_group_are_text(text: Any) -> None:
    """A key is made of both: what UTF-8 can't encode is refused where it is named."""
    with pytest.raises(ValueError, match=r"^a charge's group and subject are text that UTF-8 can encode"):
        Charge(MINUTE, "g", text)
    with pytest.raises(ValueError, match=r"^a charge's group and subject are text that UTF-8 can encode"):
        Charge(MINUTE, text, "user:1")


@pytest.mark.parametrize("number", [0, 1.5, 2.0, True, "1", None])
def test_share_03_a_policy_counts_in_integers(number: Any) -> None:
    """Limit and window are packed for the scripts as costs are."""
    with pytest.raises(ValueError, match=r"^the limit of policy 'p' is .*, not an integer from 1 to"):
        Policy("p", number, 60_000)
    with pytest.raises(ValueError, match=r"^the window of policy 'p' is .* ms, not an integer from 1 to"):
        Policy("p", 1, number)


def test_the_largest_cost_and_the_most_charges_are_decided(simulated: Simulated, subject: str) -> None:
    """What is just inside the bounds has its usual answer."""
    charges = [Charge(MINUTE, str(number), subject) for number in range(MAX_CHARGES - 1)]
    charges.append(Charge(MINUTE, "dear", subject, MAX_COST))
    answers = named(result_of(decide_charges(simulated, charges=PreparedCharges(charges), log_entries=1024)))
    assert [ChargeState.FITS] * (MAX_CHARGES - 1) + [ChargeState.TOO_DEAR] == [one.state for one in answers]


@pytest.mark.parametrize("count", [MAX_CHARGES + 1, 255, 256, 10_000])
async def test_share_03_too_many_charges_are_refused(limiter: Limiter, subject: str, count: int) -> None:
    """A request has 64 charges at most: more is a mistake, and a script has no room for it."""
    charges = [Charge(MINUTE, str(number), subject) for number in range(count)]
    with pytest.raises(ValueError, match=f"^a request has at most 64 charges, not {count}$"):
        await limiter.decide(charges)


async def test_share_03_any_number_of_charges_can_be_looked_at(limiter: Limiter, subject: str) -> None:
    """An operator's view of a subject is over all groups of a file, however many it has."""
    charges = [Charge(MINUTE, str(number), subject) for number in range(300)]
    await limiter.decide(charges[-3:])
    decision = await limiter.peek(charges)
    assert [100] * 297 + [99] * 3 == [verdict.remaining for verdict in decision.verdicts]


async def test_share_03_a_request_id_is_any_text(limiter: Limiter, subject: str) -> None:
    """It is only hashed: one that UTF-8 can't encode is decided once, as every other."""
    charges = [Charge(MINUTE, "g", subject)]
    first, again = [await limiter.decide(charges, request_id="\ud800") for _ in range(2)]
    assert first == again
    assert await limiter.refund(charges, request_id="\ud800") == 1


def test_a_log_whose_running_total_begins_anew_admits_no_more(simulated: Simulated, subject: str) -> None:
    """An entry keeps the total modulo 2^16: a client that is never idle passes that after a few windows."""
    charge = Charge(Policy("many", 30_000, 60_000), "g", subject, 10_000)
    simulated.now_us = START_US
    admitted = []
    for _ in range(20 * 4):
        admitted.append(result_of(decide_charges(simulated, charges=[charge], log_entries=1024)).allowed)
        simulated.now_us += 15_000_000
    assert [True, True, True, False] * 20 == admitted

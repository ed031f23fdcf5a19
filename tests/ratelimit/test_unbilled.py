"""What is admitted while Redis is away, and what becomes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.fallback import FAILURES_TO_OPEN, Breaker, FailureModes, Fallback, UnbilledCharges
from server.ratelimit.policies import MAX_COST, OnFailure
from server.ratelimit.scripts import Calls, charge_unbilled, decide_charges, peek_charges
from server.stores.redis.link import RedisLink
from tests.ratelimit.broken_redis import breakable_redis
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.ratelimit.simulated_redis import ALGORITHMS, START_US, Simulated, named, result_of
from tests.support.properties import examples
from tests.support.redis_servers import answers, open_link
from tests.support.waiting import wait_until

SECOND_US = 1_000_000


async def test_point_08_what_was_admitted_meanwhile_is_charged(tmp_path: Path) -> None:
    """Forty requests pass while Redis is gone; when it is back they count, and there is no room for more."""
    charge = Charge(Policy("forty", 40, 600_000), "g", "user:1")
    async with breakable_redis(tmp_path / "redis") as redis:
        link = RedisLink(redis.url, deadline_ms=200)
        await link.start()
        limiter = Limiter(link, deadline_ms=200)
        async with redis.broken_by("killed"):
            await wait_until(lambda: not link.connected, "the loss is noticed")
            decisions = [await limiter.decide([charge]) for _ in range(40)]
            assert {("open", True)} == {(decision.source, decision.allowed) for decision in decisions}

        async def refused_by_redis() -> bool:
            return (await limiter.decide([charge])).source in {"redis", "local-deny"}

        await wait_until(refused_by_redis, "Redis decides again")
        assert not (await limiter.decide([charge])).allowed
        await limiter.close()
        await link.close()


async def test_what_redis_may_have_charged_already_is_not_charged_again(tmp_path: Path) -> None:
    """Unbilled charges whose answer was lost are given up: rather a unit too few than a client charged twice."""
    charge = Charge(Policy("ten", 10, 600_000), "g", "user:1")
    async with breakable_redis(tmp_path / "redis") as redis, open_link(redis.url) as link:
        calls = Calls(link, deadline_ms=GENEROUS_DEADLINE_MS, log_entries=1024, keep_ms=60_000)
        outage = Fallback(link, calls, workers=lambda: 1)
        outage.decide([charge], monotonic(), owed=True)
        assert await outage._settle()  # and Redis knows the script from here on
        for _ in range(3):
            outage.decide([charge], monotonic(), owed=True)
        async with redis.broken_by("cut in mid-reply"):
            assert not await outage._settle()
        await wait_until(lambda: answers(link), "Redis is back")
        assert await outage._settle()
        (row,) = (await calls.peek([charge])).rows
        assert 10 - 1 - 3 == row[1]
        await outage.close()


def test_point_08_unbilled_are_charged_at_the_time_of_their_admission(
    simulated: Simulated, subject: str
) -> None:
    """They leave the window when they would have left it, and what has left it already is not charged."""
    policy = Policy("ten", 10, 60_000)
    charge = Charge(policy, "g", subject, 4)
    simulated.now_us = START_US
    charges = [(charge, 70 * SECOND_US), (charge, 50 * SECOND_US), (charge, 20 * SECOND_US)]
    assert result_of(charge_unbilled(simulated, charges=charges, log_entries=1024)) == 2
    look = named(result_of(peek_charges(simulated, charges=[charge])))[0]
    assert (2, 10 * SECOND_US) == (look.remaining, look.release_us)


@pytest.mark.parametrize(("age_seconds", "charged"), [(0, 4), (12, 2), (24, 0), (60, 0)])
def test_unbilled_of_a_bucket_have_drained_since_their_admission(
    simulated: Simulated, subject: str, age_seconds: int, charged: int
) -> None:
    """A bucket drains from the admission on: after half of the time half of it is charged, in the end nothing."""
    charge = Charge(Policy("ten", 10, 60_000, algorithm="token_bucket"), "g", subject, 4)
    simulated.now_us = START_US
    unbilled = [(charge, age_seconds * SECOND_US)]
    assert bool(charged) == result_of(charge_unbilled(simulated, charges=unbilled, log_entries=1024))
    look = named(result_of(peek_charges(simulated, charges=[charge])))[0]
    assert 10 - charged == look.remaining


def test_point_08_unbilled_never_pass_twice_the_limit(simulated: Simulated, subject: str) -> None:
    """However much was admitted, a client is clear again two windows later."""
    for algorithm in ALGORITHMS:
        policy = Policy(f"ten {algorithm}", 10, 60_000, algorithm=algorithm)
        simulated.now_us = START_US
        huge = Charge(policy, "g", subject, 10_000)
        result_of(charge_unbilled(simulated, charges=[(huge, 0)] * 3, log_entries=1024))
        simulated.now_us += 120 * SECOND_US
        charge = Charge(policy, "g", subject, 10)
        assert result_of(decide_charges(simulated, charges=[charge], log_entries=1024)).allowed


def test_point_08_the_account_is_bounded() -> None:
    """A client's admissions are added up, and a thousand clients are no more entries than there may be."""
    unbilled = UnbilledCharges(max_entries=100)
    for number in range(1000):
        for _ in range(10):
            unbilled.add(Charge(Policy("ten", 10, 60_000), "g", f"user:{number}"), now=1.0)
    assert len(unbilled) == 100
    taken = unbilled.take(2.0)
    assert [(10, SECOND_US)] == [(charge.cost, age_us) for charge, age_us in taken]
    assert len(unbilled) == 99


def test_a_flood_of_one_client_is_one_charge_of_twice_the_limit() -> None:
    """A policy that only watches admits whatever comes: it is added up as far as it can count, and no further."""
    unbilled = UnbilledCharges()
    for _ in range(3):
        unbilled.add(Charge(Policy("ten", 10, 60_000, shadow=True), "g", "user:1", MAX_COST), now=1.0)
    assert [20] == [charge.cost for charge, _ in unbilled.take(1.0)]


@pytest.mark.parametrize(("workers", "admitted"), [(1, 10), (2, 5), (4, 2), (100, 1)])
def test_point_08_a_local_policy_shares_its_limit(workers: int, admitted: int) -> None:
    """Each worker admits its part of the limit, one at the least."""
    fallback = FailureModes(workers=lambda: workers)
    charge = Charge(Policy("ten", 10, 60_000, on_failure="local"), "g", "user:1")
    decisions = [fallback.decide([charge], now=100.0) for _ in range(20)]
    assert admitted == sum(decision.allowed for decision in decisions)
    assert decisions[-1].source == "fallback"
    assert decisions[-1].verdicts[0].wait_ms == 60_000
    assert fallback.decide([charge], now=160.0).allowed


def test_point_08_a_local_policy_starts_from_the_last_known_use() -> None:
    """Who had used eight of ten when Redis went away has two left."""
    fallback = FailureModes()
    charge = Charge(Policy("ten", 10, 60_000, on_failure="local"), "g", "user:1")
    fallback.report_use(charge, remaining=2, now=99.0)
    assert [True, True, False] == [fallback.decide([charge], now=100.0).allowed for _ in range(3)]


def test_point_08_a_request_without_redis_is_all_or_nothing() -> None:
    """What a closed policy refuses, a local one is not charged for."""
    fallback = FailureModes()
    local = Charge(Policy("local", 1, 60_000, on_failure="local"), "g", "user:1")
    closed = Charge(Policy("closed", 1, 60_000, on_failure="closed"), "g", "user:1")
    assert [("closed", False)] * 3 == [
        (decision.source, decision.allowed)
        for decision in (fallback.decide([local, closed], now=1.0) for _ in range(3))
    ]
    assert fallback.decide([local], now=1.0).allowed


def test_point_17_an_open_policy_has_a_ceiling_in_each_process() -> None:
    """While Redis is down a process admits up to the limit in any window, and a refusal says when to come back."""
    fallback = FailureModes(workers=lambda: 4)
    charge = Charge(Policy("hundred", 100, 60_000), "g", "user:1")
    first = [fallback.decide([charge], now=100.0) for _ in range(150)]
    assert 100 == sum(decision.allowed for decision in first)
    assert ("open", 60_000) == (first[-1].source, first[-1].verdicts[0].wait_ms)
    assert not fallback.decide([charge], now=159.9).allowed
    assert 100 == sum(fallback.decide([charge], now=160.0).allowed for _ in range(150))


@given(pauses=st.lists(st.sampled_from([0.0, 0.1, 0.5, 3.0, 30.0]), max_size=300))
@settings(max_examples=examples(50))
@pytest.mark.parametrize("mode", ["open", "local"])
def test_point_17_never_more_than_the_limit_in_any_window(mode: OnFailure, pauses: list[float]) -> None:
    """Whatever the rhythm of a client: at most the limit in a trailing window, and room again a part of it later."""
    policy = Policy("twenty", 20, 60_000, on_failure=mode)
    charge, fallback = Charge(policy, "g", "user:1"), FailureModes()
    now, admitted = 1000.0, list[float]()
    for pause in pauses:
        now += pause
        live = [at for at in admitted if at > now - 60]
        if fallback.decide([charge], now=now).allowed:
            assert len(live) < 20
            admitted.append(now)
        else:
            assert 20 <= len([at for at in admitted if at > now - 60 - 60 / 64])


def test_point_17_a_flapping_redis_opens_no_second_budget() -> None:
    """What a process has admitted in one outage counts in the next, if Redis reported no later use."""
    fallback = FailureModes()
    for mode in ("open", "local"):
        charge = Charge(Policy(f"ten {mode}", 10, 60_000, on_failure=mode), "g", "user:1")
        assert 10 == sum(fallback.decide([charge], now=100.0).allowed for _ in range(20))
        fallback.report_use(
            charge, remaining=9, now=105.0
        )  # an answer that knows of one of them: the others were lost
        assert 0 == sum(fallback.decide([charge], now=110.0).allowed for _ in range(20))


def test_unbilled_of_a_steady_client_keep_their_times() -> None:
    """An outage of two windows leaves only the last window's admissions to be charged, not all at its end."""
    unbilled = UnbilledCharges()
    charge = Charge(Policy("sixty", 60, 60_000), "g", "user:1")
    for second in range(120):
        unbilled.add(charge, now=float(second))
    taken = unbilled.take(120.0)
    live = sum(one.cost for one, age_us in taken if age_us < 60 * SECOND_US)
    assert 59 <= live <= 61


async def test_a_breaker_that_is_given_up_has_no_probe_under_way() -> None:
    """The way to Redis is closed after it, so nothing may ask Redis any more."""
    before = asyncio.all_tasks()

    async def is_well() -> bool:
        return False

    breaker = Breaker(is_well, on_close=lambda: None)
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed()
    assert breaker.is_open
    await asyncio.sleep(0)  # the probe has begun to wait
    await breaker.close()
    assert before == asyncio.all_tasks()

"""What the limiter promises, a test for each promise; the numbers are those of docs/rate-limiting.md.

Each test is named after its point: `pytest tests/ratelimit -k point_12` runs those of point 12, in whichever files they
are.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.development import EmbeddedServer
from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.policies import state_key, subject_prefix
from server.ratelimit.scripts import Answers, ChargeState, decide_charges, refund_charges
from server.stores.redis.link import RedisLink
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.ratelimit.simulated_redis import START_US, Simulated, SimulatedRedis, named, result_of
from tests.support.properties import examples
from tests.support.waiting import wait_until

MINUTE = Policy("minute", 3, 60_000)
HOUR = Policy("hour", 100, 3_600_000)
SECOND_US = 1_000_000

subjects = itertools.count()


def decide(simulated: Simulated, *charges: Charge, log_entries: int = 1024) -> Answers:
    """A decision at the simulated time."""
    return result_of(decide_charges(simulated, charges=charges, log_entries=log_entries))


async def _is_allowed(limiter: Limiter, charge: Charge) -> bool:
    return (await limiter.decide([charge])).allowed


async def calls_of_scripts(link: RedisLink) -> int:
    """How many scripts Redis has run since the statistics were reset."""
    reply: bytes = await link.execute("INFO", "commandstats")
    calls = 0
    for line in reply.decode().splitlines():
        if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:")):
            calls += int(line.partition("calls=")[2].partition(",")[0])
    return calls


async def test_point_02_all_or_nothing_in_one_round_trip(
    limiter: Limiter, link: RedisLink, subject: str
) -> None:
    """Four policies of three subjects are one script call, and what one refuses the others are not charged for."""
    charges = [
        Charge(MINUTE, "g", subject),
        Charge(HOUR, "g", subject),
        Charge(HOUR, "g", f"{subject}-address"),
        Charge(HOUR, "g", f"{subject}-network"),
    ]
    await limiter.decide([Charge(HOUR, "g", f"{subject}-other")])  # so that Redis knows the script
    await link.execute("CONFIG", "RESETSTAT")
    decisions = [await limiter.decide(charges) for _ in range(4)]
    assert await calls_of_scripts(link) == 4
    assert [True, True, True, False] == [decision.allowed for decision in decisions]
    left = [verdict.remaining for verdict in (await limiter.peek(charges)).verdicts]
    assert [0, 97, 97, 97] == left


def test_point_03_time_is_exact_to_the_microsecond(simulated: Simulated, subject: str) -> None:
    """Sixteen digits are not rounded on the way through Lua: a microsecond early is early."""
    charge = Charge(Policy("exact", 1, 1000), "g", subject)
    simulated.now_us = START_US + 7
    assert decide(simulated, charge).allowed
    simulated.now_us += SECOND_US - 1
    refused = decide(simulated, charge)
    assert (ChargeState.DENIED, 1) == (named(refused)[0].state, named(refused)[0].wait_us)
    simulated.now_us += 1
    assert decide(simulated, charge).allowed


def test_point_03_time_never_goes_back_for_a_key(simulated: Simulated, subject: str) -> None:
    """A clock that is set back an hour neither admits more nor blocks a client for that hour."""
    charge = Charge(MINUTE, "g", subject)
    simulated.now_us = START_US
    assert [True, True, True, False] == [decide(simulated, charge).allowed for _ in range(4)]
    simulated.now_us -= 3600 * SECOND_US
    assert not decide(simulated, charge).allowed
    simulated.now_us += 60 * SECOND_US - 1
    assert not decide(simulated, charge).allowed
    simulated.now_us += 1
    assert decide(simulated, charge).allowed


def test_point_04_a_refusal_costs_nothing(simulated_server: SimulatedRedis, subject: str) -> None:
    """However often a refused client asks, it waits no longer, and its state does not change."""
    charge = Charge(MINUTE, "g", subject)
    simulated_server.now_us = START_US
    for _ in range(3):
        decide(simulated_server, charge)
    before = simulated_server.client.get(state_key(charge))
    for second in range(60):
        simulated_server.now_us = START_US + second * SECOND_US
        answer = named(decide(simulated_server, charge))[0]
        assert answer.wait_us == (60 - second) * SECOND_US
    assert before == simulated_server.client.get(state_key(charge))
    simulated_server.now_us = START_US + 60 * SECOND_US
    assert decide(simulated_server, charge).allowed


def test_point_04_a_refusal_forgets_nothing(simulated: Simulated, subject: str) -> None:
    """What one policy refuses leaves another's log complete, even where a reload wants it in a wider form."""
    simulated.now_us = START_US

    def charges(limit: int, other_limit: int, other_window_ms: int) -> tuple[Charge, Charge]:
        other = Policy("other", other_limit, other_window_ms)
        return Charge(Policy("full", limit, 60_000), "g", subject), Charge(other, "g", subject)

    assert decide(simulated, *charges(1, 1, 1)).allowed
    simulated.now_us += 1000
    assert not decide(simulated, *charges(1, 100_000, 1)).allowed
    assert not decide(simulated, *charges(9, 1, 60_000)).allowed


def test_point_04_a_cost_is_one_entry(simulated_server: SimulatedRedis, subject: str) -> None:
    """A cost of ten thousand takes no more room than one of one; one above the limit has its own answer."""
    policy = Policy("units", 30_000, 60_000)
    cheap, dear = Charge(policy, "cheap", subject), Charge(policy, "dear", subject, 10_000)
    for charge in (cheap, dear):
        assert decide(simulated_server, charge).allowed
    assert simulated_server.client.strlen(state_key(cheap)) == simulated_server.client.strlen(state_key(dear))
    too_dear = named(decide(simulated_server, Charge(policy, "dear", subject, 30_001)))[0]
    assert (ChargeState.TOO_DEAR, 20_000, -1) == (too_dear.state, too_dear.remaining, too_dear.wait_us)


async def test_point_05_every_key_is_short_and_has_a_ttl(limiter: Limiter, link: RedisLink) -> None:
    """Whatever a subject is called, its keys have one length and one hash tag, and every one of them will go."""
    subject = "user:" + "x" * 5000
    charges = [
        Charge(Policy("long", 500, 60_000), "g", subject),
        Charge(Policy("bucket", 500, 60_000, algorithm="token_bucket"), "g", subject),
        Charge(Policy("sub-second", 500, 250), "g", subject),
    ]
    for number in range(80):
        await limiter.decide(charges, request_id=f"request {number}")
    await limiter.block(subject, duration_ms=1000)
    prefix = subject_prefix(subject)
    keys = [key for key in await link.execute("KEYS", "*") if key.startswith(prefix)]
    assert len(keys) > 80
    assert max(map(len, keys)) <= 42
    ttls = [await link.execute("PTTL", key) for key in keys]
    assert all(ttl > 0 or ttl == -2 for ttl in ttls)


def test_point_06_another_limit_applies_to_what_was_used(simulated: Simulated, subject: str) -> None:
    """A reload neither forgets nor forgives: the log stays, whatever the limit, the window, or the size of the log."""
    simulated.now_us = START_US

    def charge(limit: int, window_ms: int, cost: int = 1) -> Charge:
        return Charge(Policy("reloaded", limit, window_ms), "g", subject, cost)

    assert named(decide(simulated, charge(10, 60_000, 8)))[0].remaining == 2
    assert not decide(simulated, charge(5, 60_000)).allowed
    assert named(decide(simulated, charge(20, 60_000)))[0].remaining == 11
    assert named(decide(simulated, charge(100_000, 60_000)))[0].remaining == 99_990
    assert named(decide(simulated, charge(100_000, 60_000, 80_000)))[0].remaining == 19_990
    assert not decide(simulated, charge(100_000, 60_000, 20_000)).allowed
    simulated.now_us += 30 * SECOND_US
    assert named(decide(simulated, charge(20, 30_000)))[0].remaining == 19
    assert named(decide(simulated, charge(20, 3_600_000)))[0].remaining == 18


async def test_point_07_a_request_id_is_charged_once_and_refunded_once(
    limiter: Limiter, subject: str
) -> None:
    """A repetition gets the first verdict, and a refund gives back what was charged, one time."""
    charges = [Charge(HOUR, "g", subject, 5), Charge(MINUTE, "g", subject)]
    first, again = [await limiter.decide(charges, request_id="one") for _ in range(2)]
    assert first == again
    assert [95, 2] == [verdict.remaining for verdict in first.verdicts]
    assert [6, 0] == [await limiter.refund(charges, request_id="one") for _ in range(2)]
    assert [100, 3] == [verdict.remaining for verdict in (await limiter.peek(charges)).verdicts]
    assert await limiter.refund(charges, request_id="unknown") == 0


def test_point_07_a_refund_is_void_when_the_clock_has_gone_back(simulated: Simulated, subject: str) -> None:
    """It gives nothing back and takes nothing away: what was charged before still counts."""
    simulated.now_us = START_US

    def charge(limit: int) -> Charge:
        return Charge(Policy("set back", limit, 2), "g", subject)

    for request_id in ("first", "second"):
        charges = [charge(2)]
        result_of(
            decide_charges(simulated, charges=charges, log_entries=9, request_id=request_id, keep_ms=60_000)
        )
        simulated.now_us += 1500
    simulated.now_us = START_US + 500
    assert result_of(refund_charges(simulated, charges=[charge(1)], request_id="second")) == (0,)
    assert not decide(simulated, charge(1)).allowed


async def test_point_09_a_flood_costs_redis_nothing(limiter: Limiter, link: RedisLink, subject: str) -> None:
    """Ten thousand requests of a client that is over its limit are fewer than ten commands, at once or one by one."""
    for flood in ("one by one", "at once"):
        charge = Charge(MINUTE, flood, subject)
        await limiter.decide([Charge(MINUTE, flood, subject, 3)])
        calls = await calls_of_scripts(link)
        if flood == "at once":
            decisions = await asyncio.gather(*(limiter.decide([charge]) for _ in range(10_000)))
        else:
            decisions = [await limiter.decide([charge]) for _ in range(10_000)]
        assert not any(decision.allowed for decision in decisions)
        assert await calls_of_scripts(link) - calls < 10


async def test_point_09_the_first_instant_is_not_missed(limiter: Limiter, subject: str) -> None:
    """A refused client that asks without a pause is let in when the refusal said, to the clocks' rounding."""
    charge = Charge(Policy("short", 1, 300), "g", subject)
    await limiter.decide([charge])
    began = monotonic()
    refused = await limiter.decide([charge])
    promised = began + refused.verdicts[0].wait_ms / 1000
    await wait_until(lambda: _is_allowed(limiter, charge), "there is room again")
    assert -0.01 < monotonic() - promised < 0.25


async def test_point_09_another_process_resets(
    limiter: Limiter, shared_redis: EmbeddedServer, subject: str
) -> None:
    """A reset elsewhere ends a refusal that is remembered here, a second later at the most."""
    charge = Charge(Policy("one", 1, 600_000), "g", subject)
    await limiter.decide([charge])
    assert not (await limiter.decide([charge])).allowed
    other_link = RedisLink(shared_redis.url, deadline_ms=GENEROUS_DEADLINE_MS)
    await other_link.start()
    other = Limiter(other_link, deadline_ms=GENEROUS_DEADLINE_MS)
    await other.reset(subject, [charge])
    await other.close()
    await other_link.close()
    await wait_until(lambda: _is_allowed(limiter, charge), "the reset is noticed", seconds=5)


async def test_point_10_decisions_of_one_tick_travel_together(
    shared_redis: EmbeddedServer, subject: str
) -> None:
    """A hundred clients' decisions, begun in one tick of the loop, are one write and one round trip."""
    round_trips: list[float] = []
    link = RedisLink(shared_redis.url, deadline_ms=GENEROUS_DEADLINE_MS, on_round_trip=round_trips.append)
    await link.start()
    limiter = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
    await limiter.decide([Charge(HOUR, "g", subject)])
    round_trips.clear()
    await asyncio.gather(*(limiter.decide([Charge(HOUR, "g", f"{subject}-{n}")]) for n in range(100)))
    assert len(round_trips) == 1
    await limiter.close()
    await link.close()


async def test_point_11_noscript_never_reaches_a_caller(
    limiter: Limiter, link: RedisLink, subject: str
) -> None:
    """A Redis that has forgotten its scripts is told them again, and the decision is made."""
    charges = [Charge(HOUR, "g", subject)]
    for _ in range(2):
        await link.execute("SCRIPT", "FLUSH")
        decisions = await asyncio.gather(*(limiter.decide(charges) for _ in range(20)))
        assert {("redis", True)} == {(decision.source, decision.allowed) for decision in decisions}
    assert (await limiter.peek(charges)).verdicts[0].remaining == 60


@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    limit=st.integers(1, 30),
    window_ms=st.integers(1, 2000),
    history=st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 5)), min_size=1, max_size=40),
)
def test_point_14_a_token_bucket_refills_steadily(
    simulated: Simulated, limit: int, window_ms: int, history: list[tuple[int, int]]
) -> None:
    """In any stretch of time it admits no more than a full bucket and what has flowed in meanwhile, and no less."""
    simulated.now_us = START_US
    policy = Policy("bucket", limit, window_ms, algorithm="token_bucket")
    subject, span = f"user:bucket-{next(subjects)}", window_ms * 1000
    tokens, last = float(limit), simulated.now_us
    for pause_us, cost in history:
        simulated.now_us += pause_us
        tokens = min(limit, tokens + (simulated.now_us - last) * limit / span)
        last = simulated.now_us
        answers = decide(simulated, Charge(policy, "g", subject, cost))
        answer = named(answers)[0]
        if answers.allowed:
            assert tokens - cost > -1e-6
            tokens -= cost
            assert abs(answer.remaining - tokens) <= 1
        elif cost <= limit:
            assert tokens - cost < 1e-6
            assert abs(answer.wait_us - (cost - tokens) * span / limit) <= 1.5
        else:
            assert answer.state is ChargeState.TOO_DEAR


def test_point_14_a_bucket_gives_back_only_what_has_not_drained(simulated: Simulated, subject: str) -> None:
    """A refund never makes more room than there would be if the request had never come."""
    charges = [Charge(Policy("bucket", 10, 10_000, algorithm="token_bucket"), "g", subject, 5)]
    simulated.now_us = START_US
    for request_id in "ab":
        result_of(
            decide_charges(simulated, charges=charges, log_entries=1, request_id=request_id, keep_ms=60_000)
        )
    simulated.now_us += 3 * SECOND_US
    assert result_of(refund_charges(simulated, charges=charges, request_id="a")) == (2,)
    assert named(decide(simulated, Charge(charges[0].policy, "g", subject, 6)))[0].remaining == 5
    assert decide(simulated, Charge(charges[0].policy, "g", subject, 5)).allowed


async def test_point_15_operators_see_and_steer(link: RedisLink, subject: str) -> None:
    """Each verdict is counted by policy, outcome and source; a client's refusals are one log line a minute."""
    counted: Counter[tuple[str, str, str]] = Counter()
    limiter = Limiter(
        link, deadline_ms=GENEROUS_DEADLINE_MS, on_decision=lambda *decided: counted.update([decided])
    )
    with capture_logs() as logs:
        for _ in range(10):
            await limiter.decide([Charge(MINUTE, "g", subject)])
    await limiter.close()
    assert {
        ("minute", "allowed", "redis"): 3,
        ("minute", "denied", "redis"): 1,
        ("minute", "denied", "local-deny"): 6,
    } == counted
    lines: list[Any] = [line for line in logs if line["event"] == "rate_limit.denied"]
    assert [(subject, "minute", "g")] == [(line["subject"], line["policy"], line["group"]) for line in lines]


async def test_point_15_near_limit_counts(link: RedisLink, subject: str) -> None:
    """What is admitted with more than four fifths of a limit in use is counted by policy; what is refused is not."""
    near: Counter[str] = Counter()
    limiter = Limiter(
        link, deadline_ms=GENEROUS_DEADLINE_MS, on_near_limit=lambda policy: near.update([policy])
    )
    ten, five = Policy("ten", 10, 60_000), Policy("five", 5, 60_000)
    for used in range(1, 9):
        assert (await limiter.decide([Charge(ten, "g", subject)])).allowed
        assert near.total() == 0, f"{used} of 10"
    for _ in range(5):
        await limiter.decide([Charge(ten, "g", subject), Charge(five, "g", subject)])
    await limiter.close()
    assert {"ten": 2} == near


@pytest.mark.parametrize(
    ("policy", "warned"), [("noeviction", False), ("allkeys-lru", True), ("volatile-ttl", True)]
)
async def test_point_05_a_start_warns_of_eviction(
    own_redis: EmbeddedServer, policy: str, warned: bool
) -> None:
    """A Redis that may drop what was counted is mentioned at start."""
    link = RedisLink(own_redis.url, deadline_ms=GENEROUS_DEADLINE_MS)
    await link.start()
    await link.execute("CONFIG", "SET", "maxmemory-policy", policy)
    with capture_logs() as logs:
        await Limiter(link).start()
    await link.close()
    assert warned == any(line["event"] == "rate_limit.may_be_evicted" for line in logs)

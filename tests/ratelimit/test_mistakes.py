"""Mistakes that other limiters ship, each as a test that fails where it is made.

One more, trusting the first X-Forwarded-For entry, is in test_identity.py.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from server.development import EmbeddedServer
from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.policies import Algorithm, block_key, pages_key, record_key, state_key
from server.ratelimit.scripts import Answers, ChargeState, decide_charges
from server.stores.redis.link import RedisLink
from server.stores.redis.scripts import SCRIPTS_FOLDER
from tests.ratelimit.broken_redis import breakable_redis
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.ratelimit.simulated_redis import ALGORITHMS, START_US, Simulated, SimulatedRedis, named, result_of
from tests.support.redis_servers import open_link
from tests.support.waiting import wait_until

SERVER_FOLDER = Path(__file__).resolve().parents[2] / "server"


def decide(simulated: Simulated, *charges: Charge) -> Answers:
    """A decision at the simulated time."""
    return result_of(decide_charges(simulated, charges=charges, log_entries=1024))


def test_mistake_cost_ignored_in_the_check(simulated: Simulated, subject: str) -> None:
    """Nine of ten used: one more fits, two do not."""
    policy = Policy("ten", 10, 60_000)
    assert decide(simulated, Charge(policy, "g", subject, 9)).allowed
    assert not decide(simulated, Charge(policy, "g", subject, 2)).allowed
    assert decide(simulated, Charge(policy, "g", subject, 1)).allowed


def test_mistake_a_weighted_denial_charged(simulated: Simulated, subject: str) -> None:
    """A refused cost of five leaves all three units that were there."""
    policy = Policy("ten", 10, 60_000)
    decide(simulated, Charge(policy, "g", subject, 7))
    assert [3, 3] == [
        named(decide(simulated, Charge(policy, "g", subject, 5)))[0].remaining for _ in range(2)
    ]
    assert decide(simulated, Charge(policy, "g", subject, 3)).allowed


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mistake_debt_that_grows_on_denials(simulated: Simulated, subject: str, algorithm: Algorithm) -> None:
    """Whoever goes on asking while refused waits no longer than who waits in silence."""
    charge = Charge(Policy("one", 1, 1000, algorithm=algorithm), "g", subject)
    simulated.now_us = START_US
    decide(simulated, charge)
    assert not any(decide(simulated, charge).allowed for _ in range(100))
    simulated.now_us += 1_000_000
    assert decide(simulated, charge).allowed


async def test_mistake_a_ttl_never_set(limiter: Limiter, link: RedisLink, subject: str) -> None:
    """Every charge leaves keys that live for its window and a second, and half a window more at most."""
    charge = Charge(Policy("minute", 100, 60_000), "g", subject)
    for _ in range(40):
        await limiter.decide([charge])
        assert 60_500 < await link.execute("PTTL", state_key(charge)) <= 92_000
    assert 60_500 < await link.execute("PTTL", pages_key(charge)) <= 93_000


def test_mistake_expire_before_the_first_write(simulated_server: SimulatedRedis, subject: str) -> None:
    """The very first charge of a client has its TTL, as it is written with it."""
    charge = Charge(Policy("minute", 100, 60_000), "g", subject)
    decide(simulated_server, charge)
    assert 60_500 < int(simulated_server.client.pttl(state_key(charge))) <= 92_000


def test_mistake_expire_zero_for_windows_below_a_second(
    simulated_server: SimulatedRedis, subject: str
) -> None:
    """A window of a millisecond limits, too."""
    charge = Charge(Policy("fast", 1, 1), "g", subject)
    simulated_server.now_us = START_US
    assert [True, False] == [decide(simulated_server, charge).allowed for _ in range(2)]
    assert int(simulated_server.client.pttl(state_key(charge))) > 0


def test_mistake_seconds_floored(simulated: Simulated, subject: str) -> None:
    """A window of 500 ms is over after 500 ms, not at once and not never."""
    charge = Charge(Policy("half", 1, 500), "g", subject)
    simulated.now_us = START_US
    assert decide(simulated, charge).allowed
    simulated.now_us += 499_999
    assert not decide(simulated, charge).allowed
    simulated.now_us += 1
    assert decide(simulated, charge).allowed


async def test_mistake_a_deny_cache_to_the_end_of_a_fixed_window(limiter: Limiter, subject: str) -> None:
    """Room comes back unit by unit as the window slides, and the memory of a refusal ends with the first."""
    policy = Policy("two", 2, 1500)
    charge = Charge(policy, "g", subject)
    await limiter.decide([charge])
    await asyncio.sleep(0.5)  # the behaviour is that the two units come back half a second apart
    await limiter.decide([charge])
    refused = await limiter.decide([charge])
    assert not refused.allowed
    assert refused.verdicts[0].wait_ms <= 1000

    async def allowed() -> bool:
        return (await limiter.decide([charge])).allowed

    await wait_until(allowed, "the first unit is back", seconds=1.3)
    assert not await allowed()


def test_mistake_keys_of_one_client_in_two_slots() -> None:
    """All keys of a subject have one hash tag, whatever is in its name."""
    charge = Charge(Policy("tagged", 1, 1000), "g", "user:{x}{y}")
    keys = [state_key(charge), pages_key(charge), block_key(charge.subject), record_key([charge], "id")]
    tags = {re.fullmatch(rb"[^{]*\{([^}]+)\}[^{}]*", key) for key in keys}
    assert len({match[1] for match in tags if match is not None}) == 1
    assert None not in tags


async def test_mistake_an_unhandled_noscript(own_redis: EmbeddedServer, subject: str) -> None:
    """A Redis that has never seen the scripts decides the first request."""
    async with open_link(own_redis.url) as link:
        limiter = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
        assert (await limiter.decide([Charge(Policy("one", 1, 1000), "g", subject)])).source == "redis"
        await limiter.close()


async def test_mistake_retries_that_charge_twice(tmp_path: Path, subject: str) -> None:
    """A decision whose reply is lost on the way is charged once: it is not asked again, nor charged afterwards."""
    charge = Charge(Policy("ten", 10, 600_000), "g", subject)
    async with breakable_redis(tmp_path / "redis") as redis, open_link(redis.url) as link:
        limiter = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
        await limiter.decide([charge])
        redis.proxy.cuts_replies = True
        assert (await limiter.decide([charge])).source == "open"
        redis.proxy.cuts_replies = False
        await wait_until(lambda: link.connected, "the link is back")

        async def from_redis() -> bool:
            return (await limiter.decide([Charge(charge.policy, "other", subject)])).source == "redis"

        await wait_until(from_redis, "Redis decides again")
        assert (await limiter.peek([charge])).verdicts[0].remaining == 8
        await limiter.close()


def test_mistake_a_denial_that_has_charged_the_hour(simulated: Simulated, subject: str) -> None:
    """What the second refuses, the hour is not charged for, in whatever order they are asked."""
    second, hour = Policy("second", 1, 1000), Policy("hour", 100, 3_600_000)
    for group, policies in (("hour first", (hour, second)), ("second first", (second, hour))):
        charges = [Charge(policy, group, subject) for policy in policies]
        simulated.now_us = START_US
        decisions = [decide(simulated, *charges) for _ in range(20)]
        assert [True] + [False] * 19 == [decision.allowed for decision in decisions]
        assert 99 in [charge.remaining for charge in named(decisions[-1])]


def test_mistake_client_clocks() -> None:
    """No client's time decides: scripts get the bounds of a calendar's period alone, and one part reads a clock."""
    readers = [
        path.name
        for path in sorted(SCRIPTS_FOLDER.rglob("*.lua"))
        if b"redis.call('TIME')" in path.read_bytes()
    ]
    assert ["server_clock.lua"] == readers
    wrappers = (SERVER_FOLDER / "ratelimit" / "scripts.py").read_text()
    assert not re.search(r"^(from|import) (time|datetime)", wrappers, re.MULTILINE)


def test_mistake_reset_by_scan_inside_a_script() -> None:
    """No script walks the keyspace, and neither does the limiter."""
    texts = [
        path.read_text()
        for path in (*SCRIPTS_FOLDER.rglob("*.lua"), *(SERVER_FOLDER / "ratelimit").glob("*.py"))
    ]
    assert not any(re.search(r"""['"](SCAN|KEYS)['"]""", text, re.IGNORECASE) for text in texts)


def test_mistake_lua_false_arriving_as_none(simulated: Simulated, subject: str) -> None:
    """A refusal is made of integers: there is no nil for a client to stumble over."""
    charge = Charge(Policy("one", 1, 1000), "g", subject)
    decide(simulated, charge)
    refused = decide(simulated, charge)
    assert refused.allowed is False
    assert named(refused)[0].state is ChargeState.DENIED
    assert json.dumps([named(refused)[0].remaining, named(refused)[0].release_us, named(refused)[0].wait_us])


def test_mistake_a_reset_time_of_the_full_window(simulated: Simulated, subject: str) -> None:
    """What a client is told is when its own next unit comes back."""
    charge = Charge(Policy("two", 2, 60_000), "g", subject)
    simulated.now_us = START_US
    decide(simulated, charge)
    simulated.now_us += 50_000_000
    second = named(decide(simulated, charge))[0]
    assert (0, 10_000_000) == (second.remaining, second.release_us)


async def test_mistake_a_blocking_client_in_an_async_application(limiter: Limiter, subject: str) -> None:
    """While one decision waits for Redis, the loop turns."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    for _ in range(20):
        await limiter.decide([Charge(Policy("many", 100, 60_000), "g", subject)])
    turning.cancel()
    assert turns > 20

"""The limiter's public face on a real Redis: decide, peek, refund, reset, block."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

import pytest

from server.development import EmbeddedServer
from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.coalescing import FIRST_IN_FLIGHT, Coalescer
from server.ratelimit.policies import state_key, subject_prefix
from server.stores.redis.link import RedisLink
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.support.redis_servers import open_link

MINUTE = Policy("minute", 10, 60_000)
HOUR = Policy("hour", 1000, 3_600_000)

BURST = """
import asyncio, sys
from server.ratelimit import Charge, Limiter, Policy
from server.stores.redis.link import RedisLink

async def burst(url, subject):
    link = RedisLink(url, deadline_ms=20_000)
    await link.start()
    limiter = Limiter(link, deadline_ms=20_000)
    charge = Charge(Policy("minute", 10, 60_000), "g", subject)
    print("ready", flush=True)
    sys.stdin.readline()
    decisions = await asyncio.gather(*(limiter.decide([charge]) for _ in range(50)))
    print(sum(decision.allowed for decision in decisions))
    await limiter.close()
    await link.close()

asyncio.run(burst(*sys.argv[1:]))
"""


async def test_point_01_a_client_gets_its_limit_and_then_no_more(limiter: Limiter, subject: str) -> None:
    """Ten a minute are ten; each verdict counts down."""
    charge = Charge(MINUTE, "g", subject)
    decisions = [await limiter.decide([charge]) for _ in range(11)]
    assert [True] * 10 + [False] == [one.allowed for one in decisions]
    assert [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0] == [one.verdicts[0].remaining for one in decisions]
    assert 59_000 < decisions[-1].verdicts[0].wait_ms <= 60_000


def test_point_01_200_parallel_requests_from_4_processes_admit_exactly_10(
    shared_redis: EmbeddedServer, subject: str
) -> None:
    """The check and the charge are one step, whoever asks."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", BURST, shared_redis.url, subject],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(4)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert any(line == "ready\n" for line in worker.stdout)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        admitted = [int(worker.communicate()[0].splitlines()[-1]) for worker in workers]
    assert sum(admitted) == 10


async def test_presets_count_on_their_own(limiter: Limiter, subject: str) -> None:
    """Another policy, another group and another subject are each another budget."""
    full = Policy("full", 1, 60_000)
    assert (await limiter.decide([Charge(full, "g", subject)])).allowed
    assert not (await limiter.decide([Charge(full, "g", subject)])).allowed
    assert (await limiter.decide([Charge(Policy("other", 1, 60_000), "g", subject)])).allowed
    assert (await limiter.decide([Charge(full, "other", subject)])).allowed
    assert (await limiter.decide([Charge(full, "g", f"{subject}-other")])).allowed


async def test_point_15_peek_charges_nothing(limiter: Limiter, subject: str) -> None:
    """A look leaves everything as it was."""
    charges = [Charge(MINUTE, "g", subject), Charge(HOUR, "g", subject)]
    await limiter.decide(charges)
    looks = [await limiter.peek(charges) for _ in range(3)]
    assert [(9, 999)] * 3 == [tuple(one.remaining for one in look.verdicts) for look in looks]


async def test_share_04_what_is_charged_to_be_given_back_is_refused_from_memory(
    limiter: Limiter, link: RedisLink, subject: str
) -> None:
    """A request id made for the decision has no first verdict: a flood costs Redis nothing, and a refund ends it."""
    charge = Charge(Policy("two", 2, 600_000), "g", subject)
    for number in range(2):
        assert (await limiter.decide([charge], request_id=f"{number}", is_new=True)).allowed
    assert "redis" == (await limiter.decide([charge], request_id="2", is_new=True)).source
    keys = await link.execute("DBSIZE")
    for number in range(3, 20):
        refused = await limiter.decide([charge], request_id=f"{number}", is_new=True)
        assert ("local-deny", False) == (refused.source, refused.allowed)
    assert keys == await link.execute("DBSIZE")
    assert (await limiter.decide([charge], request_id="0")).allowed, "a repetition gets the first verdict"
    assert [1, 0] == [await limiter.refund([charge], request_id="0") for _ in range(2)]
    assert (await limiter.decide([charge], request_id="20", is_new=True)).allowed


async def test_point_15_reset_gives_everything_back(limiter: Limiter, subject: str) -> None:
    """A refused client that is reset is allowed at once, although its refusal was remembered."""
    charge = Charge(Policy("one", 1, 60_000), "g", subject)
    await limiter.decide([charge])
    assert not (await limiter.decide([charge])).allowed
    assert (await limiter.decide([charge])).source == "local-deny"
    assert await limiter.reset(subject, [charge]) == 1
    assert (await limiter.decide([charge])).allowed


async def test_point_15_a_blocked_subject_is_refused_under_every_policy(
    limiter: Limiter, subject: str
) -> None:
    """A block holds for its time, says how long, and a reset ends it."""
    await limiter.block(subject, duration_ms=60_000)
    for policy in (MINUTE, HOUR):
        decision = await limiter.decide([Charge(policy, "g", subject)])
        assert not decision.allowed
        assert 59_000 < decision.verdicts[0].wait_ms <= 60_000
    await limiter.reset(subject, [Charge(MINUTE, "g", subject)])
    assert (await limiter.decide([Charge(HOUR, "g", subject)])).allowed


async def test_point_15_a_shadow_policy_is_counted_and_never_enforced(link: RedisLink, subject: str) -> None:
    """What a shadow policy would have refused passes, and is reported."""
    outcomes: list[tuple[str, str, str]] = []
    limiter = Limiter(
        link, deadline_ms=GENEROUS_DEADLINE_MS, on_decision=lambda *decided: outcomes.append(decided)
    )
    shadow = Charge(Policy("shadow", 1, 60_000, shadow=True), "g", subject)
    real = Charge(Policy("real", 2, 60_000), "g", subject)
    decisions = [await limiter.decide([shadow, real]) for _ in range(3)]
    assert [True, True, False] == [decision.allowed for decision in decisions]
    assert [
        ("shadow", "allowed", "redis"),
        ("real", "allowed", "redis"),
        ("shadow", "shadow-denied", "redis"),
        ("real", "allowed", "redis"),
        ("shadow", "shadow-denied", "redis"),
        ("real", "denied", "redis"),
    ] == outcomes
    await limiter.close()


async def test_two_charges_of_one_budget_are_refused(limiter: Limiter, subject: str) -> None:
    """They would overwrite each other; the caller adds them up."""
    with pytest.raises(ValueError, match="make them one"):
        await limiter.decide([Charge(MINUTE, "g", subject), Charge(MINUTE, "g", subject, 2)])


async def test_point_10_parallel_decisions_of_one_loop_travel_together(
    limiter: Limiter, subject: str
) -> None:
    """A thousand decisions at once are a thousand exact answers."""
    charges = [Charge(Policy("many", 600, 60_000), "g", subject)]
    decisions = await asyncio.gather(*(limiter.decide(charges) for _ in range(1000)))
    assert sum(decision.allowed for decision in decisions) == 600


async def test_who_gives_up_waiting_as_its_turn_comes_is_passed_over() -> None:
    """A decision that is abandoned while it waits, at the moment when its turn comes, ends as abandoned."""
    coalescer = Coalescer()
    for _ in range(FIRST_IN_FLIGHT):
        assert coalescer.enter(b"k")
    waiting = asyncio.create_task(coalescer.wait(b"k"))
    await asyncio.sleep(0)
    waiting.cancel()
    for _ in range(FIRST_IN_FLIGHT):  # before the one that waits has noticed
        coalescer.leave(b"k", room=100)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert coalescer.enter(b"k")


async def test_point_19_one_key_that_fails_is_its_own_trouble(own_redis: EmbeddedServer) -> None:
    """A subject whose keys Redis refuses is decided without Redis, up to the limit; nobody else is."""
    failures: list[str] = []
    outages: list[bool] = []
    refused, other = Charge(MINUTE, "g", "user:refused"), Charge(MINUTE, "g", "user:other")
    async with open_link(own_redis.url) as admin:
        allowed = (subject_prefix(other.subject) + b"*").decode()
        await admin.execute("ACL", "SETUSER", "limited", "on", ">secret", f"~{allowed}", "+@all")
    async with open_link(f"redis://limited:secret@127.0.0.1:{own_redis.port}/0") as link:
        limiter = Limiter(link, on_failure=failures.append, on_fallback=outages.append)
        decisions = [await limiter.decide([refused]) for _ in range(MINUTE.limit + 10)]
        assert {"open"} == {decision.source for decision in decisions}
        assert MINUTE.limit == sum(decision.allowed for decision in decisions)
        assert ["script"] * len(decisions) == failures
        assert "redis" == (await limiter.decide([other])).source
        assert [] == outages
        await limiter.close()


async def test_waiting_decisions_do_not_ask_a_redis_that_did_not_answer() -> None:
    """When the decisions in flight fail, those that wait for them end with them."""
    coalescer = Coalescer()
    for _ in range(FIRST_IN_FLIGHT):
        assert coalescer.enter(b"k")
    waiting = [asyncio.create_task(coalescer.wait(b"k")) for _ in range(20)]
    await asyncio.sleep(0)
    coalescer.leave(b"k", failed=True)
    assert [False] * 20 == await asyncio.gather(*waiting)
    for _ in range(FIRST_IN_FLIGHT - 1):
        coalescer.leave(b"k", failed=True)
    assert coalescer.enter(b"k")


def test_a_deploy_finds_what_was_counted_before() -> None:
    """A state's key stays; another one forgets all budgets, and is due only where the format of states changes."""
    assert b"r:{cz-Ba5qf4jUGAodQ}:ZLQavg20" == state_key(Charge(Policy("api", 10, 60_000), "reads", "user:1"))

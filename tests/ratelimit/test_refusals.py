"""What is remembered of refusals: for how long, and what ends it."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.policies import EPOCH_KEY, Decision, Verdict, prepared
from server.ratelimit.refusals import DenyCache, RefusalEpoch
from server.ratelimit.reports import DenialLog
from server.stores.redis.link import RedisLink
from tests.support.waiting import wait_until

TEN = Policy("ten", 10, 60_000)


def refusal_of(charge: Charge) -> Verdict:
    """The verdict of a refused charge."""
    return Verdict(
        charge.policy, charge.group, charge.subject, allowed=False, limit=10, remaining=2, next_release_ms=1000,
        wait_ms=5000, retryable=True, shadow=False,
    )  # fmt: skip


def test_a_refusal_is_remembered_until_its_cost_fits() -> None:
    """Not only until the next unit is free; the waits go down, and what costs less has to be asked."""
    denials, charge = DenyCache(), Charge(TEN, "g", "user:1", 5)
    denials.remember(charge, refusal_of(charge), asked_at=100.0, wait_us=5_000_000, release_us=1_000_000)
    waits = []
    for now in (100.0, 100.5, 101.0, 104.75):
        found = denials.find(prepared([charge]), now)
        assert found is not None
        assert (False, "local-deny") == (found.allowed, found.source)
        waits.append((found.verdicts[0].next_release_ms, found.verdicts[0].wait_ms))
    assert [(1000, 5000), (500, 4500), (0, 4000), (0, 250)] == waits
    assert denials.find(prepared([Charge(TEN, "g", "user:1", 4)]), 101.0) is None
    assert denials.find(prepared([Charge(TEN, "g", "user:1", 6)]), 101.0) is not None
    assert denials.find(prepared([charge]), 105.0) is None
    assert 0 == len(denials)


def test_a_reload_that_changes_nothing_forgets_no_refusal() -> None:
    """A refusal holds for the policy as it is written; where its numbers change, Redis is asked."""
    denials, charge = DenyCache(), Charge(TEN, "g", "user:1", 5)
    denials.remember(charge, refusal_of(charge), asked_at=100.0, wait_us=5_000_000, release_us=1)
    again = prepared([Charge(Policy("ten", 10, 60_000), "g", "user:1", 5)])
    assert denials.find(again, 101.0) is not None
    assert denials.find(prepared([Charge(Policy("ten", 11, 60_000), "g", "user:1", 5)]), 101.0) is None


def test_so_many_refusals_are_remembered_and_no_more() -> None:
    """The oldest one goes first; one that is refused again is the newest."""
    denials = DenyCache(max_entries=2)
    charges = [Charge(TEN, "g", f"user:{number}", 5) for number in range(3)]
    for number in (0, 1, 0, 2):
        charge = charges[number]
        denials.remember(charge, refusal_of(charge), asked_at=100.0, wait_us=5_000_000, release_us=1)
    assert [True, False, True] == [denials.find(prepared([one]), 101.0) is not None for one in charges]


def test_a_refused_client_is_one_line_a_minute() -> None:
    """However often it asks; another client, and another policy, have lines of their own."""
    denial_log, asks = DenialLog(), Charge(TEN, "g", "user:1", 5)
    other_policy = Charge(Policy("other", 10, 60_000), "g", "user:1", 5)
    lines = []
    for charge, now in (
        (asks, 100.0), (asks, 100.5), (other_policy, 101.0), (Charge(TEN, "g", "user:2", 5), 101.0),
        (asks, 159.5), (asks, 160.0), (asks, 219.5), (asks, 220.0),
    ):  # fmt: skip
        with capture_logs() as logs:
            denial_log.denied(Decision(False, (refusal_of(charge),), "redis"), now)
        lines += [(now, line["policy"], line["subject"]) for line in logs]
    assert [
        (100.0, "ten", "user:1"),
        (101.0, "other", "user:1"),
        (101.0, "ten", "user:2"),
        (160.0, "ten", "user:1"),
        (220.0, "ten", "user:1"),
    ] == lines


@pytest.mark.parametrize("first", ["a reset before the first look", "no reset before"])
async def test_a_reset_by_another_process_is_seen_a_second_later(link: RedisLink, first: str) -> None:
    """Redis is asked once a second at most; what it says is acted upon once."""
    changes: list[str] = []
    mine = RefusalEpoch(link, lambda: changes.append("mine"))
    other = RefusalEpoch(link, lambda: changes.append("other"))
    if first == "a reset before the first look":
        await other.advance()
    else:
        await link.execute("DEL", EPOCH_KEY)

    async def look(now: float) -> bool:
        """Whether Redis was asked."""
        before = mine._look
        mine.look_again(now)
        if mine._look is before:
            return False
        await wait_until(lambda: mine._look is not None and mine._look.done(), "it has been looked at")
        return True

    assert await look(100.0)
    changes.clear()
    assert await look(101.0)
    assert [] == changes
    await other.advance()
    assert ["other"] == changes
    assert not await look(101.999)
    assert await look(102.0)
    assert await look(103.0)
    assert ["other", "mine"] == changes
    for epoch in (mine, other):
        await epoch.close()


async def test_a_refusal_with_its_texts_is_counted_as_a_decision_is(link: RedisLink, subject: str) -> None:
    """The counters of sources and policies do not depend on the way to a refusal from memory."""
    counted: list[tuple[str, str, str]] = []
    limiter = Limiter(link, on_decision=lambda *decision: counted.append(decision))
    charges = prepared([Charge(Policy("one", 1, 60_000), "g", subject), Charge(TEN, "g", subject)])
    assert (await limiter.decide(charges)).allowed
    assert "redis" == (await limiter.decide(charges)).source
    assert limiter.recall(charges) is None  # no refusal from memory was made before
    counted.clear()
    decision = await limiter.decide(charges)
    by_decision, sources = counted.copy(), dict(limiter.sources)
    counted.clear()

    found = limiter.recall(charges)

    assert "local-deny" == decision.source
    assert found is not None
    assert 0 < found[1] <= decision.violated[0].wait_ms
    assert by_decision == counted == [("one", "denied", "local-deny")]
    assert sources | {"local-deny": sources["local-deny"] + 1} == limiter.sources
    limiter.forget_denials()
    assert limiter.recall(charges) is None
    await limiter.close()

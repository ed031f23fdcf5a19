"""A refusal that is remembered: written from its texts, it says what the long way says."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from server.api.responses import problem_response
from server.middleware.admission import SECONDS, body_around
from server.ratelimit.headers import problem_of, rate_limit_lines, refusal_of, waits_of
from server.ratelimit.policies import Charge, Policy, PreparedCharges, Verdict
from server.ratelimit.refusals import DenyCache

ASKED_AT = 5000.0

policies = st.builds(
    Policy,
    name=st.sampled_from(["api", 'a "quoted" name', "<id>\\"]),
    limit=st.integers(1, 100_000),
    window_ms=st.integers(1, 400_000_000),
    algorithm=st.sampled_from(["sliding_window", "token_bucket"]),
)


@given(
    policy=policies,
    others=st.lists(
        st.builds(
            Policy,
            name=st.sampled_from(["other", "third"]),
            limit=st.integers(1, 100),
            window_ms=st.just(60_000),
            shadow=st.booleans(),
        ),
        max_size=2,
        unique_by=lambda other: other.name,
    ),
    place=st.integers(0, 2),
    remaining=st.integers(0, 50),
    wait_us=st.integers(1, 400_000_000_000),
    fraction=st.floats(0, 1.1),
    wall=st.floats(1_600_000_000, 2_000_000_000),
    ids=st.lists(st.from_regex(r"[A-Za-z0-9._:+/=-]{20,40}", fullmatch=True), min_size=1, max_size=3),
)
def test_its_texts_are_those_of_the_long_way(
    policy: Policy,
    others: list[Policy],
    place: int,
    remaining: int,
    wait_us: int,
    fraction: float,
    wall: float,
    ids: list[str],
) -> None:
    """Headers and body are equal at any time until the cost fits, for any id; afterwards there are none."""
    cache = DenyCache()
    charge = Charge(policy, "reads", "user:1", min(2, policy.limit))
    rest = [Charge(other, "reads", "user:1") for other in others]
    charges = PreparedCharges([*rest[:place], charge, *rest[place:]])
    verdict = Verdict(policy, "reads", "user:1", False, policy.limit, remaining, 0, wait_us // 1000)
    cache.remember(charge, verdict, asked_at=ASKED_AT, wait_us=wait_us, release_us=wait_us // 2)
    assert cache.recall(charges, ASKED_AT) is None
    cache.find(charges, ASKED_AT)

    now = ASKED_AT + wait_us / 1e6 * fraction
    remembered = cache.recall(charges, now)
    decision = cache.find(charges, now)

    assert (remembered is None) == (decision is None)
    if remembered is None or decision is None:
        return
    for request_id in ids:
        waits = waits_of(decision, jitter=request_id)
        texts = remembered.texts
        lines, seconds = texts.at(remembered.wait_ms(now), now=wall, jitter=request_id)
        problem = problem_of(decision, waits=waits)
        assert rate_limit_lines(decision, now=wall, waits=waits) == lines
        assert refusal_of(decision, now=wall, jitter=request_id) == (lines, problem)
        assert texts.problem(seconds) == problem
        before, between, after = body_around(texts.problem(SECONDS))
        assert long_body(problem, request_id) == f"{before}{seconds}{between}{request_id}{after}".encode()


def long_body(problem: dict[str, object], request_id: str) -> object:
    response = problem_response(
        status=429,
        title=str(problem["title"]),
        detail=str(problem["detail"]),
        code="rate_limited",
        request_id=request_id,
        extensions={"type": problem["type"], "violated-policies": problem["violated-policies"]},
    )
    return response.body


def test_another_refusal_of_the_same_request_is_seen() -> None:
    """What is remembered of one charge is not told when a second one is refused, or when all was forgotten."""
    minute, hour = Policy("minute", 10, 60_000), Policy("hour", 100, 3_600_000)
    charges = PreparedCharges([Charge(minute, "reads", "user:1"), Charge(hour, "reads", "user:1")])
    cache = DenyCache()

    def refuse(index: int) -> None:
        charge = charges[index]
        verdict = Verdict(charge.policy, "reads", "user:1", False, charge.policy.limit, 0, 1000, 1000)
        cache.remember(charge, verdict, asked_at=ASKED_AT, wait_us=9_000_000, release_us=9_000_000)

    refuse(0)
    cache.find(charges, ASKED_AT)
    assert cache.recall(charges, ASKED_AT) is not None
    refuse(1)
    assert cache.recall(charges, ASKED_AT) is None
    decision = cache.find(charges, ASKED_AT)
    assert decision is not None
    assert len(decision.violated) == 2
    assert cache.recall(charges, ASKED_AT) is None
    cache.forget()
    assert cache.recall(charges, ASKED_AT) is None
    refuse(1)
    cache.find(charges, ASKED_AT)
    remembered = cache.recall(charges, ASKED_AT)
    assert remembered is not None
    problem = remembered.texts.problem(9)
    assert ["hour"] == problem["violated-policies"]
    assert orjson.dumps(problem)

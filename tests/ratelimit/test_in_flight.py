"""Point 22: how many requests of a subject run at once, in leases that are given back or expire."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_aiohttp import AiohttpClient

from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.aiohttp import LIMITER, rate_limit
from server.ratelimit.headers import problem_of, rate_limit_headers
from server.ratelimit.policies import MAX_IN_FLIGHT
from server.ratelimit.scripts import decide_charges, peek_charges, refund_charges
from server.stores.redis.link import RedisLink
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.ratelimit.simulated_redis import START_US, SimulatedRedis, named, result_of
from tests.support.properties import examples
from tests.support.waiting import wait_until

AT_ONCE = Policy("at-once", 2, 60_000, algorithm="concurrency")
HOUR = Policy("hour", 100, 3_600_000)
NEVER_EXPIRES_MS = 3_600_000
GO = web.AppKey("go", asyncio.Event)
subjects = itertools.count()


@dataclass(frozen=True, slots=True)
class Step:
    """A request begins, an earlier one ends, or nothing happens, after a pause in milliseconds."""

    kind: Literal["begin", "end", "wait"]
    pause_ms: int
    which: int


steps = st.builds(
    Step, st.sampled_from(["begin", "begin", "end", "wait"]), st.integers(0, 12), st.integers(0, 5)
)


@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(1, 5), st.integers(1, 30), st.lists(steps, min_size=1, max_size=60))
def test_point_22_leases_are_exact_in_random_histories(
    simulated: SimulatedRedis, limit: int, lease_ms: int, history: list[Step]
) -> None:
    """Never more at once than the limit, and never fewer than there is room for; what is not given back expires."""
    simulated.now_us, simulated.kept_longer_ms = START_US, NEVER_EXPIRES_MS
    subject = f"user:leases-{next(subjects)}"
    charges = [
        Charge(Policy("at-once", limit, lease_ms, algorithm="concurrency"), "g", subject),
        Charge(HOUR, "g", subject),
    ]
    running: dict[str, int] = {}
    begun: list[str] = []
    admitted = 0
    for number, step in enumerate(history):
        simulated.now_us += step.pause_ms * 1000
        now = simulated.now_us
        running = {name: at for name, at in running.items() if now - at < lease_ms * 1000}
        if step.kind == "begin":
            answers = result_of(
                decide_charges(
                    simulated, charges=charges, log_entries=1024, request_id=str(number), keep_ms=60_000
                )
            )
            assert answers.allowed == (len(running) < limit and admitted < 100)
            if answers.allowed:
                running[str(number)] = now
                begun.append(str(number))
                admitted += 1
        elif step.kind == "end" and step.which < len(begun):
            name = begun[-1 - step.which]
            units = result_of(refund_charges(simulated, charges=charges, request_id=name, costs=[0, None]))
            assert units == (int(running.pop(name, None) is not None), 0)
        assert len(running) <= limit
        peeked = named(result_of(peek_charges(simulated, charges=charges)))
        assert [limit - len(running), 100 - admitted] == [answer.remaining for answer in peeked]


async def test_point_22_a_lease_is_given_back_once_and_others_stay(limiter: Limiter, subject: str) -> None:
    """Two at once, the third refused for a second; what ends makes room at once, and the hour stays charged."""
    charges = [Charge(AT_ONCE, "g", subject), Charge(HOUR, "g", subject)]
    decisions = [await limiter.decide(charges, request_id=name, is_new=True) for name in "abc"]
    assert [True, True, False] == [decision.allowed for decision in decisions]
    assert 0 < decisions[2].verdicts[0].wait_ms <= 1000
    for _ in range(2):
        limiter.release(charges, request_id="a", decision=decisions[0])
    await _settled(limiter)
    peeked = await limiter.peek(charges)
    assert [1, 98] == [verdict.remaining for verdict in peeked.verdicts]
    decisions = [await limiter.decide(charges, request_id=name, is_new=True) for name in "de"]
    assert [True, False] == [decision.allowed for decision in decisions]


async def _settled(limiter: Limiter) -> None:
    await wait_until(lambda: not limiter._releases, "the leases to be given back")


async def test_point_22_a_settlement_leaves_the_lease(limiter: Limiter, subject: str) -> None:
    """A cost that is settled while the request runs, and the end of the request, are two calls on one decision."""
    charges = [Charge(AT_ONCE, "g", subject), Charge(HOUR, "g", subject)]
    decision = await limiter.decide(charges, request_id="one", is_new=True)
    assert (0, -4) == await limiter.settle(charges, request_id="one", costs=[None, 5])
    assert (0, 0) == await limiter.settle(charges, request_id="one", costs=[None, 9])
    assert [1, 95] == [verdict.remaining for verdict in (await limiter.peek(charges)).verdicts]
    limiter.release(charges, request_id="one", decision=decision)
    await _settled(limiter)
    assert [2, 95] == [verdict.remaining for verdict in (await limiter.peek(charges)).verdicts]


async def test_point_22_without_redis_leases_are_counted_and_given_back_in_memory(subject: str) -> None:
    """An open policy admits two at once in this process, however many come one after the other."""
    link = RedisLink("redis://127.0.0.1:1", deadline_ms=50)
    await link.start()
    limiter = Limiter(link)
    charges = [Charge(AT_ONCE, "g", subject)]
    for _ in range(3):
        first, second, third = [await limiter.decide(charges, request_id=name, is_new=True) for name in "abc"]
        assert [True, True, False] == [one.allowed for one in (first, second, third)]
        assert first.source == "open"
        for name, decision in (("a", first), ("b", second)):
            limiter.release(charges, request_id=name, decision=decision)
    await limiter.close()
    await link.close()


async def test_point_22_a_decision_that_could_not_be_given_back_is_loud(
    limiter: Limiter, subject: str
) -> None:
    """Without a request id a lease would last to its end: that is a mistake of the program."""
    with pytest.raises(ValueError, match="it needs one"):
        await limiter.decide([Charge(AT_ONCE, "g", subject)])
    with pytest.raises(ValueError, match=f"allows {MAX_IN_FLIGHT + 1} at once; {MAX_IN_FLIGHT} at most"):
        Policy("p", MAX_IN_FLIGHT + 1, 1000, algorithm="concurrency")


async def test_point_22_headers_and_problem_name_what_is_limited_at_once(
    limiter: Limiter, subject: str
) -> None:
    """The draft's unit for it, no window, and a refusal in words; X-RateLimit stays with what has a reset."""
    charges = [Charge(AT_ONCE, "g", subject), Charge(HOUR, "g", subject)]
    decisions = [await limiter.decide(charges, request_id=name, is_new=True) for name in "abc"]
    allowed, refused = [dict(rate_limit_headers(decisions[index], now=0)) for index in (0, 2)]
    assert '"at-once";q=2;qu="concurrent-requests", "hour";q=100;w=3600' == allowed["RateLimit-Policy"]
    assert allowed["RateLimit"].startswith('"at-once";r=1, "hour";r=99;t=')
    assert "100" == allowed["X-RateLimit-Limit"]
    assert ('"at-once";r=0', "2") == (refused["RateLimit"], refused["X-RateLimit-Limit"])
    assert refused["Retry-After"] in {"1", "2"}  # clients do not come back in step
    assert problem_of(decisions[2])["detail"].startswith("More than 2 at once (at-once). Try again in")


@pytest.fixture
async def slow(aiohttp_client: AiohttpClient, link: RedisLink, subject: str) -> TestClient[Any, Any]:
    """An application whose handlers wait until the test lets them go."""
    limiter = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
    go = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        if request.query.get("fails"):
            raise ValueError
        await go.wait()
        return web.Response(text="done")

    app = web.Application(middlewares=[rate_limit(limiter, AT_ONCE, subject=lambda _: subject)])
    app[GO], app[LIMITER] = go, limiter
    app.router.add_get("/", handle)

    async def close(_: web.Application) -> None:
        await limiter.close()

    app.on_cleanup.append(close)
    client: TestClient[Any, Any] = await aiohttp_client(app)
    return client


async def test_point_22_an_application_limits_what_runs_at_once(
    slow: TestClient[Any, Any], subject: str
) -> None:
    """The third is refused while two run; then they end, one fails, one client hangs up: each makes room."""
    limiter, charges = slow.app[LIMITER], [Charge(AT_ONCE, "", subject)]

    async def has_left(units: int) -> bool:
        remaining: int = (await limiter.peek(charges)).verdicts[0].remaining
        return remaining == units

    running = [asyncio.create_task(slow.get("/")) for _ in range(2)]
    await wait_until(lambda: has_left(0), "two to run")
    assert 429 == (await slow.get("/")).status
    running[0].cancel()  # the client hangs up
    slow.app[GO].set()
    assert 200 == (await running[1]).status
    for _ in range(3):
        assert 500 == (await slow.get("/?fails=1")).status
    await wait_until(lambda: has_left(2), "all to have ended")

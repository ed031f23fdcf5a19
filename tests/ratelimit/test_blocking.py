"""The limiter in code without asyncio."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from server.development import EmbeddedServer
from server.ratelimit import Policy, charges_of
from server.ratelimit.blocking import BlockingLimiter
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS


def test_point_25_threads_share_a_limiter(shared_redis: EmbeddedServer, subject: str) -> None:
    """Of what many threads ask at once as much passes as the limit allows; the other calls work, too."""
    policy = Policy.parse("10/hour")
    charges = charges_of(subject, policy)
    with (
        BlockingLimiter.from_url(shared_redis.url, deadline_ms=GENEROUS_DEADLINE_MS) as limiter,
        ThreadPoolExecutor(8) as threads,
    ):
        decisions = list(threads.map(lambda _: limiter.hit(subject, policy), range(40)))
        assert 10 == sum(decision.allowed for decision in decisions)
        assert 0 == limiter.peek(charges).verdicts[0].remaining
        limiter.reset(subject, charges)
        assert limiter.hit(subject, policy, request_id="one").allowed
        assert 1 == limiter.refund(charges, request_id="one")
        limiter.block(subject, duration_ms=60_000)
        assert not limiter.hit(subject, policy).allowed
        limiter.reset(subject, charges)


def test_point_20_a_blocking_limiter_that_was_not_started_says_so() -> None:
    """Without its thread nothing would ever answer."""
    limiter = BlockingLimiter.from_url("memory://")
    with pytest.raises(RuntimeError, match="not started"):
        limiter.hit("user:1", "1/minute")
    with limiter:
        assert limiter.hit("user:1", "1/minute").allowed

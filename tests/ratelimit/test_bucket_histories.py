"""Random histories of a token bucket against a brute-force oracle in exact fractions.

MASTERY_TEST_HISTORIES says how many histories are generated.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

from hypothesis import given, settings
from hypothesis import strategies as st

from server.ratelimit.policies import Charge, Policy
from server.ratelimit.scripts import Answers, ChargeState, decide_charges, peek_charges, refund_charges
from tests.ratelimit.oracle import OracleBucket
from tests.ratelimit.simulated_redis import START_US, Simulated, named, result_of
from tests.ratelimit.test_histories import HISTORIES, NEVER_EXPIRES_MS, Refund, histories, lists_of

# The scripts count in doubles: nearer than this to the brink, either answer is right.
BRINK = Fraction(1, 1_000_000)
KEEP_MS = 60_000

subjects = itertools.count()


@dataclass(frozen=True, slots=True)
class Request:
    """A request after a pause in microseconds (negative: the clock goes back), or an earlier one once more."""

    pause_us: int
    cost: int
    repeats: int | None


@dataclass(frozen=True, slots=True)
class NewLimit:
    """A reload."""

    limit: int
    window_ms: int


pauses_us = st.one_of(
    st.just(0), st.integers(0, 300_000), st.integers(0, 3_000_000), st.integers(-500_000, 0)
)
new_limits = st.builds(NewLimit, st.integers(1, 30), st.integers(1, 2000))
requests = st.builds(
    Request, pauses_us, st.integers(1, 6), st.one_of(st.none(), st.none(), st.none(), st.integers(0, 3))
)
steps = st.one_of(requests, requests, requests, requests, st.builds(Refund, st.integers(0, 3)), new_limits)


@dataclass(slots=True)
class Decided:
    """An earlier decision.

    A refund is void once the bucket's clock has gone back, and when the bucket has been empty since; on the brink of
    that, doubles may say otherwise.
    """

    request_id: str
    cost: int
    at: int
    answers: Answers
    refunded: bool = False
    void: bool = False
    may_be_void: bool = False


@dataclass(slots=True)
class World:
    """Redis and the oracle side by side, until the oracle can't say which way it went on the brink."""

    redis: Simulated
    limit: NewLimit
    subject: str = field(default_factory=lambda: f"user:bucket-history-{next(subjects)}")
    bucket: OracleBucket = field(default_factory=OracleBucket)
    decided: list[Decided] = field(default_factory=list)
    unsure: bool = False

    @property
    def rate(self) -> Fraction:
        """Units that drain in a microsecond."""
        return Fraction(self.limit.limit, self.limit.window_ms * 1000)

    def level(self, now: int) -> Fraction:
        """Units in use; a limit that is lower since leaves at most twice itself of what was in use before."""
        written = self.bucket.written
        return max(
            Fraction(0),
            min(self.bucket.level(written, self.rate), Fraction(2 * self.limit.limit))
            - self.rate * max(Fraction(0), now - written),
        )

    def charges(self, cost: int) -> list[Charge]:
        """The charge of a request."""
        policy = Policy("bucket", self.limit.limit, self.limit.window_ms, "token_bucket")
        return [Charge(policy, "g", self.subject, cost)]

    def ask(self, request_id: str, cost: int) -> Answers:
        """A decision."""
        return result_of(
            decide_charges(
                self.redis,
                charges=self.charges(cost),
                log_entries=1,
                request_id=request_id,
                keep_ms=KEEP_MS,
            )
        )

    def decide(self, request: Request) -> None:
        """Both decide."""
        self.redis.now_us += request.pause_us
        if request.repeats is not None and request.repeats < len(self.decided):
            earlier = self.decided[-1 - request.repeats]
            assert earlier.answers == self.ask(earlier.request_id, earlier.cost)
            return
        now, cost, limit = self.redis.now_us, request.cost, self.limit.limit
        level = self.level(now)
        peeked = result_of(peek_charges(self.redis, charges=self.charges(cost)))
        answers = self.ask(str(len(self.decided)), cost)
        answer, room = named(answers)[0], limit - level - cost
        assert named(peeked)[0].state is answer.state
        if cost > limit:
            assert (ChargeState.TOO_DEAR, -1) == (answer.state, answer.wait_us)
        elif abs(room) > BRINK:
            assert (ChargeState.FITS if room > 0 else ChargeState.DENIED) == answer.state
        if answer.state is ChargeState.DENIED:
            assert abs(answer.wait_us + room / self.rate) <= 1 + BRINK
        left = room if answers.allowed else limit - level
        assert max(0, floor(left - BRINK)) <= answer.remaining <= max(0, floor(left + BRINK))
        if answers.allowed:
            for earlier in self.decided:
                earlier.may_be_void |= level <= BRINK
            self.write(now)
            if level < self.bucket.level(now, self.rate):
                self.bucket.start_from(now, level)
            self.bucket.admissions.append((Fraction(now), Fraction(cost)))
        self.decided.append(Decided(str(len(self.decided)), cost, now, answers))

    def write(self, now: int) -> None:
        """The state is written: earlier decisions can't be refunded if the clock has gone back since."""
        if self.bucket.notice_clock(now):
            for earlier in self.decided:
                earlier.void = True

    def refund(self, which: int) -> None:
        """Both refund, at most once, what has not drained since; that makes no more room than there would have been."""
        if which >= len(self.decided):
            return
        earlier, now = self.decided[-1 - which], self.redis.now_us
        level = self.level(now)
        units = result_of(
            refund_charges(self.redis, charges=self.charges(earlier.cost), request_id=earlier.request_id)
        )
        assert (units == ()) == earlier.refunded
        if earlier.refunded:
            return
        earlier.refunded = True
        if not earlier.answers.allowed or earlier.void or self.bucket.written > now:
            assert units == (0,)
            return
        credit = min(level, max(Fraction(0), earlier.cost - (now - earlier.at) * self.rate))
        if earlier.may_be_void and units == (0,):
            self.unsure = credit < 1 + BRINK
            return
        assert floor(credit - BRINK) <= units[0] <= floor(credit + BRINK)
        without = [
            one for one in self.bucket.admissions if one != (Fraction(earlier.at), Fraction(earlier.cost))
        ]
        if len(without) == len(self.bucket.admissions) - 1:
            never = OracleBucket(without, self.bucket.written)
            assert level - credit >= never.level(now, self.rate)
        if credit > 0:
            self.write(now)
            self.bucket.start_from(now, level - credit)

    def reload(self, limit: NewLimit) -> None:
        """What was in use when something was written last drains at the new rate from then on."""
        self.bucket.start_from(self.bucket.written, self.bucket.level(self.bucket.written, self.rate))
        self.limit = limit


# Its oracle computes with fractions, and its histories are long: an example costs more than elsewhere.
@settings(histories, max_examples=max(1, HISTORIES // 2))
@given(start=new_limits, history=lists_of(steps))
def test_point_14_a_bucket_is_right_in_random_histories(
    simulated: Simulated, start: NewLimit, history: list[Request | Refund | NewLimit]
) -> None:
    """Every answer is the oracle's, whatever the costs, reloads, clock steps, replays and refunds."""
    simulated.now_us, simulated.kept_longer_ms = START_US, NEVER_EXPIRES_MS
    world = World(simulated, start)
    for step in history:
        if isinstance(step, Request):
            world.decide(step)
        elif isinstance(step, Refund):
            world.refund(step.which)
        else:
            world.reload(step)
        if world.unsure:
            return

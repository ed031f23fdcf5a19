"""The algorithm changes under live keys: what was used is carried over, and no state is taken for another one."""

from __future__ import annotations

import hashlib
import itertools
import struct
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.policies import Algorithm, block_key, pages_key, state_key, subject_prefix
from server.ratelimit.scripts import (
    ChargeState,
    charge_unbilled,
    decide_charges,
    peek_charges,
    refund_charges,
)
from tests.ratelimit.oracle import Admission, OracleWindow
from tests.ratelimit.simulated_redis import (
    ALGORITHMS,
    START_US,
    Answer,
    Simulated,
    SimulatedMemory,
    SimulatedRedis,
    named,
    result_of,
)
from tests.ratelimit.test_histories import NEVER_EXPIRES_MS, histories, lists_of

SECOND_US = 1_000_000
HOUR_MS = 3_600_000
WINDOW: Algorithm = "sliding_window"
BUCKET: Algorithm = "token_bucket"
LIMITS = (1000, 100_000)  # Logs of both kinds.

subjects = itertools.count()


def charge_of(subject: str, algorithm: Algorithm, limit: int, cost: int = 1, group: str = "g") -> Charge:
    """A charge under a policy that keeps its name, whatever its algorithm."""
    return Charge(Policy("reloaded", limit, HOUR_MS, algorithm), group, subject, cost)


def decide(
    simulated: Simulated, charge: Charge, request_id: str | None = None, *, log_entries: int = 1024
) -> Answer:
    """A decision at the simulated time, which says what a look just before has said."""
    looked = named(result_of(peek_charges(simulated, charges=[charge])))[0]
    answer = named(
        result_of(
            decide_charges(
                simulated, charges=[charge], log_entries=log_entries, request_id=request_id, keep_ms=60_000
            )
        )
    )[0]
    assert (looked.state, looked.wait_us) == (answer.state, answer.wait_us)
    assert looked.remaining == answer.remaining + (charge.cost if answer.state is ChargeState.FITS else 0)
    return answer


def remaining(simulated: Simulated, charge: Charge) -> int:
    """What a look says is left."""
    return named(result_of(peek_charges(simulated, charges=[charge])))[0].remaining


@pytest.fixture(params=[2, 16])
def simulated_pages(request: pytest.FixtureRequest, simulated: Simulated) -> Simulated:
    """A Redis of each version, with pages of each size; no key expires before its time."""
    simulated.page_entries, simulated.kept_longer_ms = request.param, NEVER_EXPIRES_MS
    simulated.now_us = START_US
    return simulated


@pytest.fixture(params=[2, 16])
def simulated_server_pages(
    request: pytest.FixtureRequest, simulated_server: SimulatedRedis
) -> SimulatedRedis:
    """A Redis of each version, with pages of each size; no key expires before its time."""
    simulated_server.page_entries, simulated_server.kept_longer_ms = request.param, NEVER_EXPIRES_MS
    simulated_server.now_us = START_US
    return simulated_server


@pytest.mark.parametrize("limit", LIMITS)
def test_share_02_a_fresh_key_is_fresh_under_either_algorithm(
    simulated_pages: Simulated, subject: str, limit: int
) -> None:
    """What has left a bucket or a window is not there under the other algorithm."""
    for before, after in (ALGORITHMS, ALGORITHMS[::-1]):
        client = f"{subject} {before}"
        assert decide(simulated_pages, charge_of(client, before, limit)).remaining == limit - 1
        simulated_pages.now_us += HOUR_MS * 1000
        assert decide(simulated_pages, charge_of(client, after, limit)).remaining == limit - 1


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("charges", [1, 5, 40, 100])
def test_share_02_a_bucket_that_becomes_a_window_keeps_what_has_not_drained(
    simulated_pages: Simulated, subject: str, limit: int, charges: int
) -> None:
    """Its level counts as one charge of its last instant: all of it is free a window later, none before."""
    for _ in range(charges):
        decide(simulated_pages, charge_of(subject, BUCKET, limit, 2))
    simulated_pages.now_us += 1
    assert remaining(simulated_pages, charge_of(subject, WINDOW, limit)) == limit - 2 * charges
    left = [decide(simulated_pages, charge_of(subject, WINDOW, limit)).remaining for _ in range(3)]
    assert [limit - 2 * charges - count for count in (1, 2, 3)] == left
    refused = decide(simulated_pages, charge_of(subject, WINDOW, limit, left[-1] + 1))
    assert (ChargeState.DENIED, HOUR_MS * 1000 - 1) == (refused.state, refused.wait_us)
    simulated_pages.now_us += HOUR_MS * 1000 - 1
    assert remaining(simulated_pages, charge_of(subject, WINDOW, limit)) == limit - 3


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("charges", [1, 5, 40, 100])
def test_share_02_a_window_that_becomes_a_bucket_has_the_level_of_one_that_was_always_there(
    simulated_pages: SimulatedRedis | SimulatedMemory, subject: str, limit: int, charges: int
) -> None:
    """The log says when each charge was made, so that the bucket can be filled and drained as it would have been."""
    always = charge_of(subject, BUCKET, limit, limit // 200, "always")
    for _ in range(charges):
        decide(simulated_pages, charge_of(subject, WINDOW, limit, limit // 200))
        decide(simulated_pages, always)
        simulated_pages.now_us += 13 * SECOND_US
    for cost in (1, limit, 3):
        expected = decide(simulated_pages, charge_of(subject, BUCKET, limit, cost, "always"))
        assert expected == decide(simulated_pages, charge_of(subject, BUCKET, limit, cost))
        simulated_pages.now_us += SECOND_US
    if isinstance(simulated_pages, SimulatedRedis):
        assert not simulated_pages.client.exists(
            pages_key(always), pages_key(charge_of(subject, BUCKET, limit))
        )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_share_02_a_full_client_stays_full_and_is_let_in_when_it_was_told(
    simulated_pages: Simulated, subject: str, algorithm: Algorithm
) -> None:
    """A refusal after the change names an instant, and the cost fits then and not two microseconds earlier."""
    other = next(one for one in ALGORITHMS if one != algorithm)
    for _ in range(50):
        decide(simulated_pages, charge_of(subject, other, 50))
    simulated_pages.now_us += SECOND_US
    charge = charge_of(subject, algorithm, 50)
    refused = decide(simulated_pages, charge)
    assert refused.state is ChargeState.DENIED
    assert 0 < refused.wait_us <= HOUR_MS * 1000
    simulated_pages.now_us += refused.wait_us - 2
    assert decide(simulated_pages, charge).state is ChargeState.DENIED
    simulated_pages.now_us += 2
    assert decide(simulated_pages, charge).state is ChargeState.FITS


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_share_02_a_refund_finds_its_own_state_or_nothing(
    simulated_pages: Simulated, subject: str, algorithm: Algorithm
) -> None:
    """It works while the state is the one that was charged, whatever the policy says, and is void once carried over."""
    other = next(one for one in ALGORITHMS if one != algorithm)
    for request_id in ("one", "two"):
        decide(simulated_pages, charge_of(subject, other, 1000, 5), request_id)
    charge = charge_of(subject, algorithm, 1000, 5)
    assert result_of(refund_charges(simulated_pages, charges=[charge], request_id="one")) == (5,)
    assert decide(simulated_pages, charge, "three").remaining == 990
    assert result_of(refund_charges(simulated_pages, charges=[charge], request_id="two")) == (0,)
    back = charge_of(subject, other, 1000, 5)
    assert result_of(refund_charges(simulated_pages, charges=[back], request_id="three")) == (5,)
    assert remaining(simulated_pages, back) == 995


@pytest.mark.parametrize("charges", [1, 40])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_share_02_unbilled_charges_are_added_to_what_is_carried_over(
    simulated_pages: Simulated, subject: str, algorithm: Algorithm, charges: int
) -> None:
    """What was admitted without Redis is charged to a state of the other algorithm, too."""
    other = next(one for one in ALGORITHMS if one != algorithm)
    for _ in range(charges):
        decide(simulated_pages, charge_of(subject, other, 1000))
    charge = charge_of(subject, algorithm, 1000, 7)
    unbilled = [(charge, 0), (charge, 0)]
    assert result_of(charge_unbilled(simulated_pages, charges=unbilled, log_entries=1024)) == 2
    assert remaining(simulated_pages, charge) == 1000 - charges - 14


async def test_share_02_a_reload_of_the_algorithm_through_the_limiter(limiter: Limiter, subject: str) -> None:
    """Redis decides, peek answers, and a reset forgets, whichever algorithm is asked for next."""
    for used, algorithm in enumerate((BUCKET, WINDOW, BUCKET, WINDOW), 1):
        charge = charge_of(subject, algorithm, 1000)
        decision = await limiter.decide([charge])
        assert ("redis", True) == (decision.source, decision.allowed)
        assert (await limiter.peek([charge])).verdicts[0].remaining in {1000 - used, 1001 - used}
    await limiter.reset(subject, [charge_of(subject, BUCKET, 1000)])
    assert (await limiter.peek([charge_of(subject, WINDOW, 1000)])).verdicts[0].remaining == 1000


def test_share_02_a_lower_limit_and_another_algorithm_at_once(
    simulated_pages: Simulated, subject: str
) -> None:
    """A level above twice the new limit is first cut to that, then drained, as by a bucket of the new limit."""
    for _ in range(5):
        decide(simulated_pages, charge_of(subject, BUCKET, 1000))
    simulated_pages.now_us += HOUR_MS * 750
    assert decide(simulated_pages, charge_of(subject, WINDOW, 2)).state is ChargeState.DENIED
    assert remaining(simulated_pages, charge_of(subject, WINDOW, 4)) == 1


@dataclass(frozen=True, slots=True)
class Reload:
    """Another rule for the same policy."""

    algorithm: Algorithm
    limit: int
    window_ms: int


@dataclass(slots=True)
class Model:
    """A window's list of admissions, or a bucket's level: what is carried from one to the other, by the definition."""

    rule: Reload
    window: OracleWindow | None = None
    level: float = 0
    at: int = 0

    def drained(self, now: int) -> float:
        """The bucket's level."""
        level = min(self.level, 2 * self.rule.limit)
        return max(0, level - max(0, now - self.at) * self.rule.limit / (self.rule.window_ms * 1000))

    def change(self, now: int) -> None:
        """A decision finds the state of the other algorithm."""
        span, limit = self.rule.window_ms * 1000, self.rule.limit
        if self.rule.algorithm == BUCKET and self.window is not None:
            level, previous = 0.0, 0
            for one in self.window.admissions:
                level, previous = max(0, level - (one.at - previous) * limit / span) + one.units, one.at
            self.level, self.at, self.window = min(level, 2 * limit), min(previous, now), None
        elif self.rule.algorithm == WINDOW and self.window is None:
            units, self.window = -int(-self.drained(now) // 1), OracleWindow()
            if units and now - self.at < span:
                self.window.admissions.append(Admission(min(self.at, now), units))

    def decide(self, now: int, cost: int) -> tuple[ChargeState, int]:
        """Whether it fits, and what remains then."""
        self.change(now)
        span, limit = self.rule.window_ms * 1000, self.rule.limit
        if self.window is not None:
            self.window.notice_clock(now)
            used: float = self.window.used(now, span)
        else:
            used = self.drained(now)
        left = int(max(0, limit - used))
        if cost > limit:
            return ChargeState.TOO_DEAR, left
        if used + cost > limit:
            return ChargeState.DENIED, left
        if self.window is not None:
            self.window.forget(now, span)
            self.window.admissions.append(Admission(now, cost))
        else:
            self.level, self.at = used + cost, now
        return ChargeState.FITS, left - cost


reloads = st.builds(
    Reload,
    st.sampled_from(ALGORITHMS),
    st.one_of(st.integers(1, 20), st.just(50_000)),
    st.one_of(st.integers(1, 64), st.just(300_000_000)),
)
pauses_us = st.one_of(st.just(0), st.integers(0, 20_000), st.integers(-20_000, 0), st.integers(0, 3_000_000))


@pytest.mark.parametrize("page_entries", [2, 16])
@histories
@given(start=reloads, history=lists_of(st.one_of(reloads, *[st.tuples(pauses_us, st.integers(1, 4))] * 5)))
def test_share_02_random_reloads_of_algorithm_limit_and_window(
    simulated: Simulated, page_entries: int, start: Reload, history: Sequence[Reload | tuple[int, int]]
) -> None:
    """Every answer is that of a model which carries over units and times, and looking changes nothing."""
    simulated.page_entries, simulated.kept_longer_ms = page_entries, NEVER_EXPIRES_MS
    simulated.now_us = START_US
    subject, model = f"user:reload-{next(subjects)}", Model(start)
    if start.algorithm == WINDOW:
        model.window = OracleWindow()
    for step in history:
        if isinstance(step, Reload):
            model.rule = step
            continue
        pause_us, cost = step
        simulated.now_us += pause_us
        rule = model.rule
        charge = Charge(Policy("p", rule.limit, rule.window_ms, rule.algorithm), "g", subject, cost)
        answer = decide(simulated, charge, log_entries=1_000_000)
        assert model.decide(simulated.now_us, cost) == (answer.state, answer.remaining)
        longest = (1 if rule.algorithm == WINDOW else 2) * rule.window_ms * 1000
        assert answer.wait_us <= longest


def old_state_key(charge: Charge, before: str) -> bytes:
    """Where the versions before counted a charge: 48376f2 without a number of its format, then those of format 2."""
    scope = hashlib.blake2b(f"{before}{charge.policy.name}\0{charge.group}".encode(), digest_size=6).digest()
    return subject_prefix(charge.subject) + urlsafe_b64encode(scope)


def old_states(pages: int) -> list[tuple[bytes, list[bytes]]]:
    """States as those versions wrote them, with their pages: a bucket, and logs of both kinds."""
    page = b"".join(struct.pack(">BIH", 0, at, 995 + at) for at in range(pages))
    return [
        (struct.pack(">d", 999.0) + (START_US - 1).to_bytes(7, "big") * 2, []),
        (b"\0" + START_US.to_bytes(7, "big") + struct.pack(">IBHBIH", 0, 0, 0, 0, 0, 999), []),
        (b"\1" + START_US.to_bytes(7, "big") + struct.pack(">IBHHII", 0, 0, 0, 0, 0, 99_999), []),
        (
            b"\0" + START_US.to_bytes(7, "big") + struct.pack(">IBHBIH", 0, 0, 1, 0, pages, 999),
            [page],
        ),
    ]


@dataclass(slots=True)
class _Kept:
    """What the other version has counted: it must stay as it is."""

    simulated: SimulatedRedis
    key: bytes
    state: bytes
    pages: list[bytes] = field(default_factory=list)

    def put(self) -> None:
        self.simulated.client.set(self.key, self.state, px=HOUR_MS)
        if self.pages:
            self.simulated.client.rpush(self.key + b"p", *self.pages)
            self.simulated.client.pexpire(self.key + b"p", HOUR_MS)

    def is_there(self) -> bool:
        client = self.simulated.client
        return client.get(self.key) == self.state and client.lrange(self.key + b"p", 0, -1) == self.pages


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("before", ["", "2\0"])
@pytest.mark.parametrize("which", range(4))
def test_share_02_two_versions_beside_each_other_keep_apart(
    simulated_server_pages: SimulatedRedis,
    subject: str,
    algorithm: Algorithm,
    limit: int,
    which: int,
    before: str,
) -> None:
    """A state of the version before is neither read nor written, by no script: its format is not this one's."""
    charge = charge_of(subject, algorithm, limit, 5)
    state, pages = old_states(simulated_server_pages.page_entries)[which]
    old = _Kept(simulated_server_pages, old_state_key(charge, before), state, pages)
    old.put()
    assert remaining(simulated_server_pages, charge) == limit
    assert decide(simulated_server_pages, charge, "one").remaining == limit - 5
    unbilled = [(charge, 0)]
    assert result_of(charge_unbilled(simulated_server_pages, charges=unbilled, log_entries=1024)) == 1
    assert result_of(refund_charges(simulated_server_pages, charges=[charge], request_id="one")) == (5,)
    assert decide(simulated_server_pages, charge).remaining == limit - 10
    assert old.is_there()
    assert not {old.key, old.key + b"p"} & {state_key(charge), pages_key(charge)}


def test_a_block_holds_in_two_versions(simulated_server: SimulatedRedis, subject: str) -> None:
    """An operator's block has the same name in the version before."""
    digest = hashlib.blake2b(subject.encode(), digest_size=12).digest()
    assert block_key(subject) == b"r:{" + urlsafe_b64encode(digest) + b"}:b"
    simulated_server.client.set(block_key(subject), b"1", px=60_000)
    looked = result_of(peek_charges(simulated_server, charges=[charge_of(subject, WINDOW, 10)]))
    assert named(looked)[0].state is ChargeState.BLOCKED


@pytest.mark.parametrize("charges", [40, 100])
def test_share_02_pages_that_a_state_leaves_behind_are_not_read(
    simulated_server: SimulatedRedis, subject: str, charges: int
) -> None:
    """A shorter window makes the state expire before its pages: the next log's pages are its own."""
    simulated_server.now_us = START_US
    long, short = [Charge(Policy("p", 1000, window_ms), "g", subject) for window_ms in (HOUR_MS, 60_000)]
    for _ in range(charges):
        simulated_server.now_us += 1000
        decide(simulated_server, long)
    decide(simulated_server, short)
    assert (
        0
        < int(simulated_server.client.pttl(state_key(short)))
        < int(simulated_server.client.pttl(pages_key(short)))
    )
    simulated_server.client.unlink(state_key(short))  # as it expires then
    simulated_server.now_us += 120 * SECOND_US
    for number in range(1, charges + 60):
        simulated_server.now_us += SECOND_US
        assert decide(simulated_server, short).remaining == 1000 - min(number, 60)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_share_03_a_key_lives_as_long_as_a_slower_rule_needs_it(
    simulated_server: SimulatedRedis, subject: str, algorithm: Algorithm
) -> None:
    """A refusal under a longer window, or a slower rate, keeps what is in use until it has left by that rule."""
    simulated_server.now_us = START_US
    fast, slow = [Charge(Policy("p", 60, ms, algorithm), "g", subject) for ms in (60_000, HOUR_MS)]
    for _ in range(60):
        decide(simulated_server, fast)
        simulated_server.now_us += 1
    assert int(simulated_server.client.pttl(state_key(fast))) <= 92_000
    simulated_server.now_us += 10 * SECOND_US
    assert decide(simulated_server, slow).state is ChargeState.DENIED
    assert int(simulated_server.client.pttl(state_key(slow))) > HOUR_MS - 60_000
    if algorithm == WINDOW:
        assert int(simulated_server.client.pttl(pages_key(slow))) > HOUR_MS - 60_000


@pytest.mark.parametrize("limit", LIMITS)
def test_share_03_a_life_is_set_again_before_it_is_too_short(
    simulated_server: SimulatedRedis, subject: str, limit: int
) -> None:
    """Most charges leave the keys' life as it is; the one that would outlive it by its window sets it anew."""
    simulated_server.now_us = START_US
    charge = Charge(Policy("p", limit, 60_000), "g", subject)
    client, keys = simulated_server.client, (state_key(charge), pages_key(charge))
    for _ in range(40):
        decide(simulated_server, charge)
        simulated_server.now_us += 1000
    for key in keys:
        client.pexpire(key, 30_000)  # as if it were later
    simulated_server.now_us += 29 * SECOND_US
    decide(simulated_server, charge)
    assert [30, 30] == [-(-int(client.pttl(key)) // 1000) for key in keys]
    simulated_server.now_us += 2 * SECOND_US
    decide(simulated_server, charge)
    assert all(60_500 < int(client.pttl(key)) <= 93_000 for key in keys)


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_share_02_what_has_left_a_shorter_window_does_not_come_back(
    simulated_server: SimulatedRedis, subject: str, gone: int
) -> None:
    """A charge deletes all that has left the window by then, however little that is."""
    simulated_server.now_us = START_US
    short, long = [Charge(Policy("p", 1000, ms), "g", subject) for ms in (60_000, HOUR_MS)]
    for _ in range(10):
        decide(simulated_server, short)
        simulated_server.now_us += SECOND_US
    simulated_server.now_us += (49 + gone) * SECOND_US
    assert decide(simulated_server, short).remaining == 1000 - (10 - gone) - 1
    assert decide(simulated_server, long).remaining == 1000 - (10 - gone) - 2


@pytest.mark.parametrize("limit", LIMITS)
def test_share_03_a_charge_under_a_longer_window_keeps_the_pages(
    simulated_server: SimulatedRedis, subject: str, limit: int
) -> None:
    """What a long log has in its list must not expire before the window that a reload has made longer is over."""
    simulated_server.now_us = START_US
    short, long = [Charge(Policy("p", limit, ms), "g", subject) for ms in (60_000, HOUR_MS)]
    for _ in range(40):
        decide(simulated_server, short)
        simulated_server.now_us += 1000
    assert decide(simulated_server, long).remaining == limit - 41
    for key in (state_key(long), pages_key(long)):
        assert int(simulated_server.client.pttl(key)) > HOUR_MS


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_share_03_a_key_of_another_type_is_no_use(
    simulated_server: SimulatedRedis, subject: str, algorithm: Algorithm
) -> None:
    """What somebody else has put in a state's place is nothing that was used, and gives way to the first charge."""
    charge = charge_of(subject, algorithm, 10)
    for unbilled in (False, True):
        simulated_server.client.unlink(state_key(charge))
        decide(simulated_server, charge, f"request {unbilled}")
        simulated_server.client.unlink(state_key(charge))
        simulated_server.client.hset(state_key(charge), "field", "value")
        simulated_server.client.pexpire(state_key(charge), 60_000)
        refund = refund_charges(simulated_server, charges=[charge], request_id=f"request {unbilled}")
        assert result_of(refund) == (0,)
        if unbilled:
            result_of(charge_unbilled(simulated_server, charges=[(charge, 0)], log_entries=1024))
        else:
            decide(simulated_server, charge)
        assert remaining(simulated_server, charge) == 9

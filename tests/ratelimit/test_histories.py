"""Random histories against a brute-force oracle, on the real Redis with the real scripts.

MASTERY_TEST_HISTORIES says how many histories each test generates.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from server.ratelimit.policies import Charge, Policy
from server.ratelimit.scripts import (
    Answers,
    ChargeState,
    decide_charges,
    peek_charges,
    refund_charges,
)
from tests.ratelimit.oracle import Admission, OracleWindow
from tests.ratelimit.simulated_redis import START_US, Simulated, named, result_of
from tests.support.properties import examples

HISTORIES = int(os.environ.get("MASTERY_TEST_HISTORIES", examples(40)))
# Simulated time may stand still while a busy machine makes the test wait: no key may expire meanwhile.
NEVER_EXPIRES_MS = 3_600_000
EXACT = 1_000_000  # log entries: never a ring
DAY_US = 86_400_000_000

histories = settings(
    max_examples=HISTORIES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
subjects = itertools.count()


@dataclass(frozen=True, slots=True)
class Request:
    """A request under some of two policies, after a pause in microseconds (negative: the clock goes back)."""

    pause_us: int
    costs: tuple[int, ...]
    repeats: int | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    """The refund of an earlier request, counted from the newest."""

    which: int


@dataclass(frozen=True, slots=True)
class NewLimits:
    """A reload: other limits and windows for the same policies."""

    limits: tuple[int, int]
    windows_ms: tuple[int, int]


limits = st.one_of(st.integers(1, 8), st.integers(1, 8), st.integers(1, 60), st.just(100_000))
# The longest needs the wide entries, and is shorter than what a narrow log remembers when it is written anew: only in
# these tests are states kept that long.
WIDEST_NARROW_MS = 2**38 // 1000
windows_ms = st.one_of(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 5000), st.sampled_from([250_000_000, 500_000_000])
)
pauses_us = st.one_of(
    st.just(0),
    st.integers(0, 20).map(lambda milliseconds: milliseconds * 1000),  # meets windows to the microsecond
    st.integers(0, 20).map(lambda milliseconds: milliseconds * 1000),
    st.integers(0, 30_000),
    st.integers(0, 3_000_000),
    st.integers(-20, 0).map(lambda milliseconds: milliseconds * 1000),
    st.integers(-2_000_000, 0),
    # Beyond what an entry's time can say, in several steps: the log is then written anew at a later base.
    st.sampled_from([DAY_US, 2 * DAY_US, 5 * DAY_US]),
)
costs = st.one_of(st.just(1), st.just(1), st.integers(1, 6), st.sampled_from([70, 40_000]))
repeats = st.one_of(st.none(), st.none(), st.none(), st.integers(0, 3))
requests = st.builds(Request, pauses_us, st.tuples(costs) | st.tuples(costs, costs), repeats)
new_limits = st.builds(NewLimits, st.tuples(limits, limits), st.tuples(windows_ms, windows_ms))
steps = st.one_of(requests, requests, requests, requests, st.builds(Refund, st.integers(0, 3)), new_limits)


def lists_of(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Short lists, which are mostly of six or so, and long ones."""
    return st.one_of(st.lists(elements, min_size=1), st.lists(elements, min_size=25, max_size=100))


@dataclass(slots=True)
class World:
    """Redis and the oracle side by side."""

    redis: Simulated
    limits: NewLimits
    subject: str = field(default_factory=lambda: f"user:{next(subjects)}")
    windows: tuple[OracleWindow, OracleWindow] = field(
        default_factory=lambda: (OracleWindow(), OracleWindow())
    )
    decided: list[tuple[str, tuple[int, ...], Answers]] = field(default_factory=list)
    refunded: set[str] = field(default_factory=set)
    shaken: set[str] = field(default_factory=set)

    def charges(self, costs: tuple[int, ...]) -> list[Charge]:
        """The charges of a request with these costs."""
        policies = [
            Policy(name, limit, window_ms)
            for name, limit, window_ms in zip("ab", self.limits.limits, self.limits.windows_ms, strict=True)
        ]
        return [
            Charge(policy, "g", self.subject, cost) for policy, cost in zip(policies, costs, strict=False)
        ]

    def decide(self, request: Request) -> None:
        """Both decide; they must agree in everything."""
        self.redis.now_us += request.pause_us
        if request.pause_us >= DAY_US:
            self.shaken.update(one[0] for one in self.decided)
        if request.repeats is not None and request.repeats < len(self.decided):
            request_id, costs, first = self.decided[-1 - request.repeats]
            again = result_of(
                decide_charges(
                    self.redis,
                    charges=self.charges(costs),
                    log_entries=EXACT,
                    request_id=request_id,
                    keep_ms=60_000,
                )
            )
            assert first == again
            return
        request_id = str(len(self.decided))
        charges = self.charges(request.costs)
        peeked = result_of(peek_charges(self.redis, charges=charges))
        decided = result_of(
            decide_charges(
                self.redis, charges=charges, log_entries=EXACT, request_id=request_id, keep_ms=60_000
            )
        )
        self.decided.append((request_id, request.costs, decided))
        expected = self.expected(request_id, charges)
        assert expected == [(one.state, one.remaining, one.wait_us) for one in named(decided)]
        assert all(state is ChargeState.FITS for state, _, _ in expected) == decided.allowed == peeked.allowed
        assert [one.state for one in named(decided)] == [one.state for one in named(peeked)]

    def expected(self, request_id: str, charges: list[Charge]) -> list[tuple[ChargeState, int, int]]:
        """The oracle's answers; it charges if they are all good."""
        now = self.redis.now_us
        answers = []
        for window, charge in zip(self.windows, charges, strict=False):
            limit, span = charge.policy.limit, charge.policy.window_ms * 1000
            moved = window.notice_clock(now)
            if moved:
                self.shaken.update(one[0] for one in self.decided)
            used = window.used(now, span)
            remaining = max(0, limit - used)
            if charge.cost > limit:
                answers.append((ChargeState.TOO_DEAR, remaining, -1))
            elif used + charge.cost > limit:
                answers.append((ChargeState.DENIED, remaining, window.wait(now, span, limit, charge.cost)))
            else:
                answers.append((ChargeState.FITS, remaining, 0))
        if any(state is not ChargeState.FITS for state, _, _ in answers):
            return answers
        for window, charge in zip(self.windows, charges, strict=False):
            window.forget(now, charge.policy.window_ms * 1000)
            window.admissions.append(Admission(now, charge.cost, request_id))
        return [
            (state, remaining - charge.cost, wait)
            for (state, remaining, wait), charge in zip(answers, charges, strict=True)
        ]

    def reload(self, limits: NewLimits) -> None:
        """Other limits apply to what was charged before; a log rewritten in the wide kind refunds nothing."""
        if max(limits.limits) > 32_767 or max(limits.windows_ms) > WIDEST_NARROW_MS:
            self.shaken.update(one[0] for one in self.decided)
        self.limits = limits

    def refund(self, which: int) -> None:
        """Both refund, at most once, all that is still in the window."""
        if which >= len(self.decided):
            return
        request_id, costs, decided = self.decided[-1 - which]
        charges = self.charges(costs)
        units = result_of(refund_charges(self.redis, charges=charges, request_id=request_id))
        if request_id in self.refunded:
            assert units == ()
            return
        self.refunded.add(request_id)
        for window, charge, units_back in zip(self.windows, charges, units, strict=False):
            now, span = self.redis.now_us, charge.policy.window_ms * 1000
            mine = [one for one in window.admissions if one.request_id == request_id]
            shifts = bool(window.admissions) and window.admissions[-1].at > now
            live = decided.allowed and bool(mine) and not shifts and mine[0].at > now - span
            if request_id in self.shaken:
                assert units_back in {0, charge.cost if live else 0}  # another edition may void a refund
            else:
                assert units_back == (charge.cost if live else 0)
            if units_back:
                assert units_back == charge.cost == mine[0].units
                window.admissions.remove(mine[0])


@pytest.mark.parametrize("page_entries", [2, 16])
@histories
@given(start=new_limits, history=lists_of(steps))
def test_point_01_exact_in_random_histories(
    simulated: Simulated,
    page_entries: int,
    start: NewLimits,
    history: list[Request | Refund | NewLimits],
) -> None:
    """Every answer is the oracle's, whatever the limits, costs, reloads, clock steps, replays and refunds."""
    simulated.page_entries, simulated.kept_longer_ms = page_entries, NEVER_EXPIRES_MS
    simulated.now_us = START_US
    world = World(simulated, start)
    for step in history:
        if isinstance(step, Request):
            world.decide(step)
        elif isinstance(step, Refund):
            world.refund(step.which)
        else:
            world.reload(step)


@pytest.mark.parametrize("page_entries", [2, 16])
@histories
@given(
    limit=st.integers(1, 60),
    window_ms=st.integers(1, 200),
    log_entries=st.integers(1, 12),
    history=lists_of(st.tuples(pauses_us, costs)),
)
def test_point_01_a_ring_never_admits_more_and_is_at_most_a_slot_late(
    simulated: Simulated,
    page_entries: int,
    limit: int,
    window_ms: int,
    log_entries: int,
    history: list[tuple[int, int]],
) -> None:
    """Beyond its entries a log admits never more than the limit, and refuses only what a slot's delay explains."""
    simulated.page_entries, simulated.kept_longer_ms = page_entries, NEVER_EXPIRES_MS
    simulated.now_us = START_US
    ring = Ring(simulated, log_entries)
    for pause_us, cost in history:
        ring.decide(pause_us, cost, limit, window_ms)


@pytest.mark.parametrize("page_entries", [2, 16])
@histories
@given(
    limit=st.integers(1, 12),
    log_entries=st.integers(1, 4),
    history=lists_of(
        st.tuples(
            st.one_of(st.just(0), st.just(-1), st.integers(-30, 30)).map(lambda pause: pause * 1000),
            st.integers(1, 2),
            st.sampled_from([None, None, None, 30, 44, 61]),
        )
    ),
)
@example(
    limit=4,
    log_entries=1,
    history=[(pause * 1000, 1, None) for pause in (0, 43, -1, 2, 3, 20, 20)],
)
def test_share_03_a_ring_is_at_most_a_slot_late_however_the_clock_steps(
    simulated: Simulated,
    page_entries: int,
    limit: int,
    log_entries: int,
    history: list[tuple[int, int, int | None]],
) -> None:
    """A clock that steps back again and again moves the slots with the entries; each reload may add a slot."""
    simulated.page_entries, simulated.kept_longer_ms = page_entries, NEVER_EXPIRES_MS
    simulated.now_us = START_US
    ring, window_ms = Ring(simulated, log_entries), 44
    for pause_us, cost, new_window_ms in history:
        window_ms = new_window_ms or window_ms
        ring.decide(pause_us, cost, limit, window_ms)


@dataclass(slots=True)
class Ring:
    """A ring in Redis and the oracle side by side: never more than the limit, and refusals that slots explain.

    An admission leaves late by less than the slot that it was merged in; where the window's length changed while its
    entry grew, by less than the slots of all these windows.

    Attributes:
        remembered: without what has left a window that was shorter before a reload.
        everything: what such a window may have kept for longer, merged into a later entry.
        slots_us: of the windows there were, microseconds.
    """

    redis: Simulated
    log_entries: int
    subject: str = field(default_factory=lambda: f"user:ring-{next(subjects)}")
    remembered: OracleWindow = field(default_factory=OracleWindow)
    everything: OracleWindow = field(default_factory=OracleWindow)
    slots_us: list[int] = field(default_factory=list)

    def decide(self, pause_us: int, cost: int, limit: int, window_ms: int) -> None:
        """Both decide."""
        self.redis.now_us += pause_us
        now, span = self.redis.now_us, window_ms * 1000
        slot = -(-span // self.log_entries)
        if self.slots_us[-1:] != [slot]:
            self.slots_us.append(slot)
        late = sum(self.slots_us)
        charges = [Charge(Policy("ring", limit, window_ms), "g", self.subject, cost)]
        answers = result_of(decide_charges(self.redis, charges=charges, log_entries=self.log_entries))
        self.remembered.notice_clock(now)
        self.everything.notice_clock(now)
        if answers.allowed:
            assert self.remembered.used(now, span) + cost <= limit
            self.remembered.forget(now, span)
            self.remembered.admissions.append(Admission(now, cost))
            self.everything.admissions.append(Admission(now, cost))
        elif cost <= limit:
            assert self.everything.used(now, span + late) + cost > limit
            earliest = self.remembered.wait(now, span, limit, cost)
            latest = self.everything.wait(now, span, limit, cost) + late
            assert earliest <= named(answers)[0].wait_us <= latest


@pytest.mark.parametrize("page_entries", [2, 16])
@histories
@given(
    limit=st.integers(1, 20),
    log_entries=st.integers(1, 6),
    history=lists_of(
        st.tuples(
            st.integers(0, 20).map(lambda pause: pause * 1000),
            st.integers(1, 3),
            st.one_of(st.none(), st.integers(0, 4)),
        )
    ),
)
def test_point_07_a_refund_in_a_ring_is_all_or_nothing(
    simulated: Simulated,
    page_entries: int,
    limit: int,
    log_entries: int,
    history: list[tuple[int, int, int | None]],
) -> None:
    """It makes no more room than there was; it is void only while nothing older by a slot is remembered."""
    simulated.page_entries, simulated.kept_longer_ms = page_entries, NEVER_EXPIRES_MS
    simulated.now_us = START_US
    policy, subject, window = Policy("ring", limit, 100), f"user:ring-{next(subjects)}", OracleWindow()
    span, slot = 100_000, -(-100_000 // log_entries)
    for number, (pause_us, cost, which) in enumerate(history):
        simulated.now_us += pause_us
        now, charges = simulated.now_us, [Charge(policy, "g", subject, cost)]
        answers = result_of(
            decide_charges(
                simulated, charges=charges, log_entries=log_entries, request_id=str(number), keep_ms=60_000
            )
        )
        if answers.allowed:
            assert window.used(now, span) + cost <= limit
            window.forget(now, span)
            window.admissions.append(Admission(now, cost, str(number)))
        if which is None or which >= len(window.admissions):
            continue
        mine = window.admissions[-1 - which]
        charges = [Charge(policy, "g", subject, mine.units)]
        units = result_of(refund_charges(simulated, charges=charges, request_id=str(mine.request_id)))
        live = mine.at > now - span
        if units == (mine.units,):
            assert live
            window.admissions.remove(mine)
        else:
            assert units in {(0,), ()}
            older = any(one.at <= mine.at - slot for one in window.admissions)
            assert units == () or not live or not older

"""Several processes decide at once, in random histories: they admit what the limits have room for, and all of it.

Time stands still while they are at work, so that what must come out does not depend on who came first.
MASTERY_TEST_HISTORIES says how many histories are generated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ratelimit.policies import Charge, Policy
from server.ratelimit.scripts import Answers, ChargeState
from tests.ratelimit.deciding_processes import KEPT_MS, Ask, DecidingProcesses, TakeBack, deciding_processes
from tests.ratelimit.oracle import Admission, OracleWindow
from tests.ratelimit.simulated_redis import START_US, SimulatedRedis, named
from tests.ratelimit.test_histories import EXACT, histories, pauses_us

PROCESSES = 3

subjects = itertools.count()

Costs = tuple[int, ...]
Request = tuple[
    Costs, int | None
]  # costs under one policy or two, and perhaps a request id that others use, too

units = st.integers(1, 4)
requests = st.tuples(
    st.one_of(st.tuples(units), st.tuples(units, units)), st.one_of(st.none(), st.none(), st.integers(0, 3))
)


@dataclass(frozen=True, slots=True)
class Instant:
    """What each process asks for at one time, after a pause; then perhaps all ask for the refund of one request."""

    pause_us: int
    works: tuple[list[Request], ...]
    refund: int | None


works = st.tuples(*[st.lists(requests, max_size=8)] * PROCESSES)
instants = st.builds(Instant, pauses_us, works, st.one_of(st.none(), st.integers(0, 7)))


@pytest.fixture(scope="module")
def processes() -> Iterator[DecidingProcesses]:
    """A few processes for all histories."""
    with deciding_processes(PROCESSES) as started:
        yield started


@dataclass(slots=True)
class Scene:
    """The processes, and the oracle beside them."""

    processes: DecidingProcesses
    redis: SimulatedRedis
    policies: tuple[Policy, Policy]
    subject: str = field(default_factory=lambda: f"user:at-once-{next(subjects)}")
    windows: tuple[OracleWindow, OracleWindow] = field(
        default_factory=lambda: (OracleWindow(), OracleWindow())
    )
    known: dict[tuple[str, Costs], Answers] = field(default_factory=dict)
    shaken: set[str] = field(default_factory=set)
    refunded: set[tuple[str, Costs]] = field(default_factory=set)

    def charges(self, costs: Costs) -> tuple[Charge, ...]:
        """The charges of a request with these costs."""
        return tuple(
            Charge(policy, "g", self.subject, cost)
            for policy, cost in zip(self.policies, costs, strict=False)
        )

    def decide(self, number: int, instant: Instant) -> None:
        """All processes decide; what they have admitted goes to the oracle, which judges them together."""
        self.redis.now_us += instant.pause_us
        now = self.redis.now_us
        asks = [
            [
                Ask(self.charges(costs), EXACT, None if shared is None else f"shared {shared}")
                for costs, shared in work
            ]
            for work in instant.works
        ]
        answers = self.processes.decide(self.redis.url, asks)
        refused = []
        decided = zip(itertools.chain(*asks), itertools.chain(*answers), strict=True)
        for place, (ask, answer) in enumerate(decided):
            costs = tuple(charge.cost for charge in ask.charges)
            name = (ask.request_id or f"{number}, {place}", costs)
            first = self.known.setdefault(name, answer)
            assert first == answer
            if first is not answer:
                continue
            for window, cost in zip(self.windows, costs, strict=False):
                if window.notice_clock(now):
                    self.shaken.update(one[0] for one in self.known)
                if answer.allowed:
                    window.admissions.append(Admission(now, cost, f"{name}"))
            if not answer.allowed:
                refused.append((costs, answer))
        used = [window.used(now, span) for window, span in zip(self.windows, self.spans(), strict=True)]
        limits = [policy.limit for policy in self.policies]
        assert all(units <= limit for units, limit in zip(used, limits, strict=True))
        for costs, answer in refused:
            # It would not fit now, and more was free at no time of this instant but before it was refused.
            assert any(units + cost > limit for units, cost, limit in zip(used, costs, limits, strict=False))
            states = {one.state for one in named(answer)}
            assert states <= {ChargeState.FITS, ChargeState.DENIED, ChargeState.TOO_DEAR}
            assert states != {ChargeState.FITS}

    def refund(self, which: int) -> None:
        """All processes ask for a refund; one of them gets it, if nobody ever has."""
        shared = [name for name in self.known if name[0].startswith("shared")]
        if which >= len(shared):
            return
        name = shared[which]
        given = self.processes.refund(self.redis.url, TakeBack(self.charges(name[1]), name[0]))
        answered = [units for units in given if units]
        assert len(answered) == (name not in self.refunded)
        if name in self.refunded:
            return
        self.refunded.add(name)
        for units_back, window, span, cost in zip(
            answered[0], self.windows, self.spans(), name[1], strict=False
        ):
            now = self.redis.now_us
            mine = [one for one in window.admissions if one.request_id == f"{name}"]
            live = bool(mine) and window.admissions[-1].at <= now and mine[0].at > now - span
            expected = {cost if live else 0}
            assert units_back in (expected | {0} if name[0] in self.shaken else expected)
            if units_back:
                window.admissions.remove(mine[0])

    def spans(self) -> list[int]:
        """The windows' lengths, microseconds."""
        return [policy.window_ms * 1000 for policy in self.policies]


@histories
@given(
    limits=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    windows_ms=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    history=st.lists(instants, min_size=1, max_size=8),
)
def test_point_01_processes_at_once_admit_all_that_fits_and_no_more(
    processes: DecidingProcesses,
    simulated_server: SimulatedRedis,
    limits: tuple[int, int],
    windows_ms: tuple[int, int],
    history: list[Instant],
) -> None:
    """No window ever holds more than its limit, nothing is refused that still fits, a request id is charged once."""
    simulated_server.now_us, simulated_server.kept_longer_ms = START_US, KEPT_MS
    policies = Policy("a", limits[0], windows_ms[0]), Policy("b", limits[1], windows_ms[1])
    scene = Scene(processes, simulated_server, policies)
    for number, instant in enumerate(history):
        scene.decide(number, instant)
        if instant.refund is not None:
            scene.refund(instant.refund)

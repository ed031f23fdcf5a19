"""Point 21: costs that are known only afterwards are settled once, exactly, and never beyond the limit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.limits import RateLimits
from server.ratelimit.limits_file import RateLimitsError, parse_rate_limits
from server.ratelimit.policies import MAX_COST
from server.ratelimit.scripts import Answers, decide_charges, peek_charges, refund_charges
from tests.ratelimit.oracle import Admission, OracleWindow
from tests.ratelimit.simulated_redis import START_US, Simulated, named, result_of
from tests.support.properties import examples

HOUR = Policy("hour", 100, 3_600_000)
MINUTE = Policy("minute", 10, 60_000)
NEVER_EXPIRES_MS = 3_600_000

histories = settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
subjects = itertools.count()


@dataclass(frozen=True, slots=True)
class Step:
    """A request of a cost, or the settlement of an earlier one at a cost, after a pause in microseconds."""

    kind: Literal["request", "settlement"]
    pause_us: int
    cost: int
    which: int


steps = st.builds(
    Step,
    st.sampled_from(["request", "settlement"]),
    st.one_of(st.just(0), st.integers(0, 30_000), st.integers(0, 4).map(lambda part: part * 5000)),
    st.integers(0, 12),
    st.integers(0, 3),
)


@dataclass(slots=True)
class Scene:
    """One client's window in Redis and in the oracle."""

    redis: Simulated
    policy: Policy
    subject: str = field(default_factory=lambda: f"user:cost-{next(subjects)}")
    window: OracleWindow = field(default_factory=OracleWindow)
    admitted: list[tuple[Charge, str, Admission | None]] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)

    @property
    def span(self) -> int:
        """Microseconds of the window."""
        return self.policy.window_ms * 1000

    def request(self, cost: int) -> None:
        """Both decide a request, and agree."""
        charge = Charge(self.policy, "g", self.subject, cost)
        request_id, now = str(len(self.admitted)), self.redis.now_us
        answers: Answers = result_of(
            decide_charges(
                self.redis, charges=[charge], log_entries=1_000_000, request_id=request_id, keep_ms=60_000
            )
        )
        used = self.window.used(now, self.span)
        assert answers.allowed == (used + cost <= self.policy.limit)
        admission = None
        if answers.allowed:
            admission = Admission(now, cost, request_id)
            self.window.admissions.append(admission)
        self.admitted.append((charge, request_id, admission))

    def settle(self, which: int, cost: int) -> None:
        """Both settle an earlier request, once: down what is still in the window, up what there is room for."""
        if which >= len(self.admitted):
            return
        charge, request_id, admission = self.admitted[-1 - which]
        now, used = self.redis.now_us, self.window.used(self.redis.now_us, self.span)
        units = result_of(
            refund_charges(
                self.redis, charges=[charge], request_id=request_id, costs=[cost], log_entries=1_000_000
            )
        )
        if request_id in self.settled:
            assert () == units
            return
        self.settled.add(request_id)
        (back,) = units
        if admission is None:
            assert back == 0
        elif cost > admission.units:
            more = min(cost - admission.units, self.policy.limit - used)
            assert back == -more
            if more:
                self.window.admissions.append(Admission(now, more))
        else:
            is_live = admission.at > now - self.span
            assert back == (admission.units - cost if is_live else 0)
            admission.units -= back


@histories
@given(st.integers(1, 30), st.integers(1, 20), st.lists(steps, min_size=1, max_size=60))
def test_point_21_settled_costs_are_exact_in_random_histories(
    simulated: Simulated, limit: int, window_ms: int, history: list[Step]
) -> None:
    """What a window holds is what the oracle holds after every settlement, and never more than the limit."""
    simulated.now_us = START_US
    simulated.kept_longer_ms = NEVER_EXPIRES_MS
    scene = Scene(simulated, Policy("settled", limit, window_ms))
    for step in history:
        simulated.now_us += step.pause_us
        if step.kind == "request":
            scene.request(max(1, step.cost))
        else:
            scene.settle(step.which, step.cost)
        used = scene.window.used(simulated.now_us, scene.span)
        assert used <= limit
        peeked = named(
            result_of(peek_charges(simulated, charges=[Charge(scene.policy, "g", scene.subject)]))
        )[0]
        assert limit - used == peeked.remaining


def test_point_21_a_bucket_settles_what_has_not_drained(simulated: Simulated, subject: str) -> None:
    """Downwards no more than what is still in it of these units, upwards to its limit."""
    simulated.now_us = START_US
    policy = Policy("bucket", 10, 10_000, algorithm="token_bucket")
    charge = Charge(policy, "g", subject, 8)

    def settled(request_id: str, cost: int) -> tuple[int, ...]:
        result_of(
            decide_charges(
                simulated, charges=[charge], log_entries=1024, request_id=request_id, keep_ms=60_000
            )
        )
        simulated.now_us += 5_000_000
        return result_of(refund_charges(simulated, charges=[charge], request_id=request_id, costs=[cost]))

    assert (3,) == settled("down", 1)  # 8 less the 5 that have drained: had it been 1, nothing were in use
    simulated.now_us += 60_000_000
    assert (-7,) == settled("up", 100)  # 3 are still in use, so 7 are left
    assert 0 == named(result_of(peek_charges(simulated, charges=[charge])))[0].remaining


def test_point_21_a_cost_that_grows_in_a_long_log_finds_its_pages(simulated: Simulated, subject: str) -> None:
    """Beyond 32 entries the middle of the log lies in pages: more units are charged there as a decision would."""
    simulated.now_us = START_US
    policy = Policy("long", 1000, 60_000)
    for number in range(100):
        simulated.now_us += 1000
        charge = Charge(policy, "g", subject)
        result_of(
            decide_charges(
                simulated, charges=[charge], log_entries=1024, request_id=str(number), keep_ms=60_000
            )
        )
    for number in range(0, 100, 3):
        simulated.now_us += 1000
        units = result_of(refund_charges(simulated, charges=[charge], request_id=str(number), costs=[3]))
        assert (-2,) == units
    assert 1000 - 168 == named(result_of(peek_charges(simulated, charges=[charge])))[0].remaining


async def test_point_21_a_settlement_is_made_once_for_all_charges(limiter: Limiter, subject: str) -> None:
    """Each charge has its own final cost; neither a second settlement nor a refund changes them again."""
    charges = [Charge(HOUR, "g", subject, 5), Charge(MINUTE, "g", subject, 5)]
    assert (await limiter.decide(charges, request_id="one")).allowed
    assert (-45, 4) == await limiter.settle(charges, request_id="one", costs=[50, 1])
    assert (0, 0) == await limiter.settle(charges, request_id="one", costs=[1, 1])
    assert 0 == await limiter.refund(charges, request_id="one")
    assert [50, 9] == [verdict.remaining for verdict in (await limiter.peek(charges)).verdicts]


async def test_point_21_a_settlement_never_goes_below_zero(limiter: Limiter, subject: str) -> None:
    """Whatever a request has cost in the end, nothing remains at the worst: there is no debt to wait for."""
    charge = Charge(MINUTE, "g", subject, 4)
    for request_id in ("one", "two"):
        assert (await limiter.decide([charge], request_id=request_id)).allowed
    assert (-2,) == await limiter.settle([charge], request_id="one", costs=[1_000_000])
    peeked = (await limiter.peek([charge])).verdicts[0]
    assert (0, False) == (peeked.remaining, peeked.allowed)
    assert peeked.wait_ms <= MINUTE.window_ms


async def test_point_21_a_refused_request_has_nothing_to_settle(limiter: Limiter, subject: str) -> None:
    """It was not charged, so its cost is not charged afterwards."""
    charge = Charge(MINUTE, "g", subject, 6)
    assert [True, False] == [(await limiter.decide([charge], request_id=name)).allowed for name in "ab"]
    assert (0,) == await limiter.settle([charge], request_id="b", costs=[10])
    assert 4 == (await limiter.peek([charge])).verdicts[0].remaining


@pytest.mark.parametrize("costs", [[-1], [1.0], [True], [MAX_COST + 1], [], [1, 1]])
async def test_point_21_a_cost_that_can_not_be_meant_is_refused(
    limiter: Limiter, subject: str, costs: list[int]
) -> None:
    """A settlement is validated as charges are, before Redis is asked."""
    with pytest.raises(ValueError, match="not an integer from 0 to 2147483647 for each charge"):
        await limiter.settle([Charge(MINUTE, "g", subject)], request_id="one", costs=costs)


ROUTES = {"POST /things": "writes", "POST /large-things": "writes"}
FILE = """
[policies.standard]
limit = 60
window = "1m"
[policies.api]
limit = 1000
window = "1h"
subject = "user"
share = true
[groups.writes]
policies = ["standard"]
signed_in = ["api"]
cost = 2
[routes."POST /large-things"]
cost = 20
charge = "successes"
[plans.small]
api = 15
"""


def charged(limits: RateLimits, place: str) -> list[tuple[str, str, int]]:
    """What a signed-in client's request to a group or route is charged."""
    charges = limits.charges_for(
        place, user_key="1", plan=None, client_ip="192.0.2.1", address=ip_address("192.0.2.1")
    )
    return [(charge.policy.name, charge.group, charge.cost) for charge in charges]


def test_point_21_a_group_and_a_route_have_costs_in_the_file() -> None:
    """A route's own cost is charged under its group's policies, in the same budgets."""
    limits = parse_rate_limits(FILE.partition("[plans")[0], file="limits.toml", routes=ROUTES)
    assert [("standard", "writes", 2), ("api", "*", 2)] == charged(limits, "writes")
    assert [("standard", "writes", 20), ("api", "*", 20)] == charged(limits, "POST /large-things")
    assert ["POST /large-things"] == list(limits.routes)
    assert {"POST /large-things": "successes"} == limits.charged_by_answer
    assert {"POST /large-things": 20} == limits.route_costs("writes")
    shown = [(one.policy.name, one.cost) for one in limits.policies_for_subject("user:1")]
    assert [("standard", 2), ("api", 1)] == shown


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (
            "cost = 2\n",
            "cost = 0\n",
            "groups.writes.cost: 0 is not valid; it accepts a whole number from 1 to",
        ),
        ("cost = 2\n", 'cost = "2"\n', 'groups.writes.cost: "2" is not valid; it accepts a whole number'),
        ("cost = 20", "cost = 61", 'large-things.cost: it is 61, above the limit of "standard", 60: nothing'),
        (
            "cost = 20",
            "cost = 16",
            'large-things.cost: it is 16, above the limit of "api", 15: nothing would',
        ),
        ("cost = 20", "costs = 5", 'there is no such key; did you mean "cost"?'),
        ("POST /large-t", "POST /lrge-t", 'no such limited route; did you mean "POST /large-things"?'),
        ("POST /large-things", "x", 'it reads METHOD /path, as in "POST /api/sessions"'),
    ],
)
def test_point_21_a_cost_that_can_not_work_is_refused_with_its_line(
    before: str, after: str, complaint: str
) -> None:
    """Under a limit below its cost no request would ever pass, and a route that is misspelled would cost nothing."""
    with pytest.raises(RateLimitsError) as caught:
        parse_rate_limits(FILE.replace(before, after), file="limits.toml", routes=ROUTES)
    assert any(complaint in problem for problem in caught.value.problems), caught.value.problems

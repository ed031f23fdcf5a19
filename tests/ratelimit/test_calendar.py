"""Point 24: quotas by day, week and month of a time zone, exact by the server's clock."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.calendar import NOMINAL_MS, PERIODS, Calendar, Period
from server.ratelimit.headers import problem_of, rate_limit_headers
from server.ratelimit.limits_file import RateLimitsError, parse_rate_limits
from server.ratelimit.scripts import (
    Answers,
    ChargeState,
    charge_unbilled,
    decide_charges,
    peek_charges,
    refund_charges,
)
from tests.ratelimit.simulated_redis import Simulated, named, result_of
from tests.support.properties import examples

# Zones whose clocks change at midnight, by half an hour, in the other hemisphere, or never.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
]
SECOND_US = 1_000_000
DAY_SECONDS = 86_400
subjects = itertools.count()


def policy_of(period: Period, zone: str, limit: int) -> Policy:
    """A calendar policy."""
    return Policy("quota", limit, NOMINAL_MS[period], "calendar", calendar=Calendar(period, zone))


def label(period: Period, zone: str, now: float) -> tuple[int, ...]:
    """What the calendar on the wall says."""
    local = datetime.fromtimestamp(now, ZoneInfo(zone))
    if period == "week":
        return tuple(local.isocalendar()[:2])
    return (local.year, local.month, local.day)[: 2 if period == "month" else 3]


@settings(max_examples=examples(200))
@given(st.sampled_from(PERIODS), st.sampled_from(ZONES), st.integers(1_600_000_000, 2_000_000_000))
def test_point_24_a_period_begins_and_ends_where_the_calendar_says(
    period: Period, zone: str, now: int
) -> None:
    """All of its instants have one date, week or month, those just outside another; on days of any length."""
    start, end = Calendar(period, zone).bounds(now)
    assert start <= now < end
    here = label(period, zone, now)
    assert {here} == {label(period, zone, at) for at in (start, now, (start + end) // 2, end - 1)}
    assert here not in {label(period, zone, at) for at in (start - 1, end)}


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Europe/Berlin", "2026-10-26", 24),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("America/Havana", "2026-03-08", 23),  # there is no midnight
        ("America/Havana", "2026-11-01", 25),  # there are two
    ],
)
def test_point_24_a_day_has_as_many_hours_as_the_clocks_say(zone: str, day: str, hours: float) -> None:
    """When clocks change, a day is shorter or longer; it begins with its first instant."""
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone)).timestamp()
    start, end = Calendar("day", zone).bounds(noon)
    assert hours * 3600 == end - start


@dataclass(frozen=True, slots=True)
class Step:
    """A request or a refund after a pause, by a process whose clock is off by so many seconds.

    If `turn_seconds` is given, it happens so long after the calendar's next turn instead.
    """

    kind: Literal["request", "refund"]
    pause_seconds: int
    skew_seconds: float
    cost: int
    which: int
    turn_seconds: int | None


pauses = st.one_of(st.integers(0, 5), st.integers(0, 90_000), st.integers(0, 40 * DAY_SECONDS))
steps = st.builds(
    Step,
    st.sampled_from(["request", "request", "request", "refund"]),
    pauses,
    st.sampled_from([0, 0, -0.05, 0.05, -70, 70, -7200, 7200]),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from([None, None, None, -3600, -1, 0, 1, 30, 3600]),
)


@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sampled_from(PERIODS),
    st.sampled_from(ZONES),
    st.integers(1, 12),
    st.integers(1_750_000_000, 1_800_000_000),
    st.lists(steps, min_size=1, max_size=40),
)
@example(  # a late process knows the start of the day, and an early one its end
    "day",
    "UTC",
    1,
    1_750_000_000,
    [
        Step("request", 0, -0.05, 1, 0, 0),
        Step("request", 0, 7200, 1, 0, -3600),
    ],
)
def test_point_24_quotas_are_exact_in_random_histories(
    simulated: Simulated, period: Period, zone: str, limit: int, began: int, history: list[Step]
) -> None:
    """In each period as many units as the limit, by the server's clock, however wrong those of the processes are."""
    subject, policy = f"user:calendar-{next(subjects)}", policy_of(period, zone, limit)
    simulated.kept_longer_ms = 3_600_000
    now = began
    used: dict[tuple[int, ...], int] = {}
    decided: list[tuple[Charge, tuple[int, ...]]] = []
    refunded: set[int] = set()
    for step in history:
        now += step.pause_seconds
        if step.turn_seconds is not None:
            now = max(now, Calendar(period, zone).bounds(now)[1] + step.turn_seconds)
        simulated.now_us = now * SECOND_US
        here = label(period, zone, now)
        if step.kind == "refund":
            which = len(decided) - 1 - step.which
            if which < 0 or which in refunded:
                continue
            refunded.add(which)
            charge, there = decided[which]
            (back,) = result_of(
                refund_charges(
                    simulated,
                    charges=[charge],
                    request_id=f"{which}",
                    costs=[0],
                    clock=partial(float, now + step.skew_seconds),
                )
            )
            assert back == (charge.cost if there == here else 0)
            if there:
                used[there] = used.get(there, 0) - back
            continue
        charge = Charge(policy, "g", subject, step.cost)
        answers = result_of(
            decide_charges(
                simulated,
                charges=[charge],
                log_entries=1024,
                request_id=f"{len(decided)}",
                keep_ms=3_600_000,
                clock=partial(float, now + step.skew_seconds),
            )
        )
        assert answers.allowed == (used.get(here, 0) + step.cost <= limit)
        if answers.allowed:
            used[here] = used.get(here, 0) + step.cost
        decided.append((charge, here if answers.allowed else ()))
        answer = named(answers)[0]
        assert limit - used.get(here, 0) == answer.remaining
        if step.skew_seconds == 0 and used.get(here, 0):
            _, end = Calendar(period, zone).bounds(now)
            assert (end - now) * SECOND_US == answer.release_us
            assert answer.wait_us == (
                0 if answers.allowed else -1 if step.cost > limit else answer.release_us
            )


BERLIN = "Europe/Berlin"
MIDNIGHT = int(datetime(2026, 10, 25, tzinfo=ZoneInfo(BERLIN)).timestamp())  # a day of 25 hours, a Sunday


def decide(simulated: Simulated, charge: Charge, request_id: str | None = None) -> Answers:
    """A decision of a process whose clock is right."""
    return result_of(
        decide_charges(
            simulated,
            charges=[charge],
            log_entries=1024,
            request_id=request_id,
            keep_ms=60_000,
            clock=lambda: simulated.now_us / SECOND_US,
        )
    )


def left(simulated: Simulated, charge: Charge) -> int:
    """What remains, by a process whose clock is right."""
    peeked = peek_charges(simulated, charges=[charge], clock=lambda: simulated.now_us / SECOND_US)
    return named(result_of(peeked))[0].remaining


def test_point_24_all_comes_back_when_the_day_turns(simulated: Simulated, subject: str) -> None:
    """Not a microsecond before midnight on the wall, an hour later than usual when clocks go back."""
    charge = Charge(policy_of("day", BERLIN, 2), "g", subject)
    simulated.now_us = MIDNIGHT * SECOND_US
    assert [True, True, False] == [decide(simulated, charge).allowed for _ in range(3)]
    simulated.now_us = (MIDNIGHT + 25 * 3600) * SECOND_US - 1
    refused = named(decide(simulated, charge))[0]
    assert (ChargeState.DENIED, 1) == (refused.state, refused.wait_us)
    simulated.now_us += 1
    assert [True, True, False] == [decide(simulated, charge).allowed for _ in range(3)]


@pytest.mark.parametrize("skew_seconds", [-7200, -1, 0, 1, 7200])
def test_point_24_processes_with_other_clocks_count_in_the_same_day(
    simulated_server: Simulated, subject: str, skew_seconds: int
) -> None:
    """A second before midnight and one after it, by the server: a process that is late or early knows no better."""
    charge = Charge(policy_of("day", BERLIN, 2), "g", subject)

    def by_other() -> bool:
        at = simulated_server.now_us / SECOND_US + skew_seconds
        decided = decide_charges(simulated_server, charges=[charge], log_entries=1024, clock=lambda: at)
        return result_of(decided).allowed

    for second in (-1, 1):
        simulated_server.now_us = (MIDNIGHT + second) * SECOND_US
        assert [True, True] == [by_other(), decide(simulated_server, charge).allowed]
        assert [False, False] == [by_other(), decide(simulated_server, charge).allowed]


def test_point_24_the_clock_never_goes_back_for_a_quota(simulated: Simulated, subject: str) -> None:
    """A failover to a host that is behind gives nobody the last day's budget again."""
    charge = Charge(policy_of("day", BERLIN, 2), "g", subject)
    simulated.now_us = (MIDNIGHT + 60) * SECOND_US
    assert [True, True] == [decide(simulated, charge).allowed for _ in range(2)]
    simulated.now_us -= 120 * SECOND_US
    assert not decide(simulated, charge).allowed


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (("day", BERLIN), ("day", "UTC"), True),
        (("day", "UTC"), ("day", BERLIN), True),
        (("day", BERLIN), ("week", BERLIN), True),
        (("day", BERLIN), ("month", BERLIN), True),
        (("month", BERLIN), ("day", BERLIN), False),
        (("week", BERLIN), ("day", BERLIN), False),
        (("week", BERLIN), ("month", BERLIN), True),
    ],
)
def test_point_24_a_reload_carries_over_what_is_in_the_new_period(
    simulated: Simulated, subject: str, before: tuple[Period, str], after: tuple[Period, str], kept: bool
) -> None:
    """Another zone or a longer period knows what was counted; what may be older is forgotten, never misread."""
    simulated.now_us = (MIDNIGHT - 3 * DAY_SECONDS + 36_000) * SECOND_US  # a Thursday
    assert decide(simulated, Charge(policy_of(*before, 10), "g", subject, 4)).allowed
    assert (6 if kept else 10) == left(simulated, Charge(policy_of(*after, 10), "g", subject))
    assert decide(simulated, Charge(policy_of(*after, 10), "g", subject, 6)).allowed
    assert (0 if kept else 4) == left(simulated, Charge(policy_of(*after, 10), "g", subject))


def test_point_24_a_window_and_a_calendar_keep_apart(simulated: Simulated, subject: str) -> None:
    """A reload from one to the other begins with nothing in use; neither reads the other's state."""
    simulated.now_us = MIDNIGHT * SECOND_US
    quota = Charge(policy_of("day", BERLIN, 5), "g", subject)
    window = Charge(Policy("quota", 5, 86_400_000), "g", subject)
    assert decide(simulated, quota).allowed
    assert decide(simulated, window).allowed
    assert [4, 4] == [left(simulated, charge) for charge in (quota, window)]


def test_point_24_a_cost_is_settled_and_a_refund_ends_with_the_day(
    simulated: Simulated, subject: str
) -> None:
    """Upwards as far as there is room; what was charged yesterday is not given back today."""
    simulated.now_us = MIDNIGHT * SECOND_US
    charge = Charge(policy_of("day", BERLIN, 10), "g", subject, 4)

    def settled(request_id: str, cost: int) -> tuple[int, ...]:
        at = partial(float, simulated.now_us / SECOND_US)
        return result_of(
            refund_charges(simulated, charges=[charge], request_id=request_id, costs=[cost], clock=at)
        )

    for request_id in "ab":
        assert decide(simulated, charge, request_id).allowed
    assert [(3,), (-5,), ()] == [settled("a", 1), settled("b", 20), settled("b", 1)]
    assert 0 == left(simulated, charge)
    simulated.now_us += 25 * 3600 * SECOND_US
    assert decide(simulated, charge, "c").allowed
    simulated.now_us += 24 * 3600 * SECOND_US
    assert (0,) == settled("c", 0)
    assert decide(simulated, charge, "d").allowed
    assert 6 == left(simulated, charge)


def test_point_24_what_was_admitted_without_redis_counts_in_its_own_day(
    simulated: Simulated, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Charged afterwards if it was today; at most twice the limit is ever in use."""
    simulated.now_us = (MIDNIGHT + 3600) * SECOND_US
    monkeypatch.setattr("server.ratelimit.scripts.wall_clock", lambda: simulated.now_us / SECOND_US)
    charge = Charge(policy_of("day", BERLIN, 10), "g", subject, 8)
    unbilled = [(charge, 7200 * SECOND_US), (charge, 60 * SECOND_US), (charge, 0), (charge, 0)]
    assert 3 == result_of(charge_unbilled(simulated, charges=unbilled, log_entries=1024))
    assert 0 == left(simulated, charge)
    simulated.now_us += 24 * 3600 * SECOND_US
    assert 10 == left(simulated, charge)


async def test_point_24_headers_and_problem_name_the_calendar(limiter: Limiter, subject: str) -> None:
    """Reset is the turn of the month; a refusal says so in words and when to come back."""
    policy = policy_of("month", BERLIN, 1)
    decisions = [await limiter.decide([Charge(policy, "g", subject)]) for _ in range(2)]
    now = datetime.now(UTC).timestamp()
    _, end = Calendar("month", BERLIN).bounds(now)
    allowed, refused = [dict(rate_limit_headers(decision, now=now)) for decision in decisions]
    assert '"quota";q=1' == allowed["RateLimit-Policy"]
    reset = datetime.fromisoformat(allowed["X-RateLimit-Reset"]).timestamp()
    assert abs(end - reset) < 30  # the test's clock is read after the decision
    assert abs(end - now - int(refused["Retry-After"])) < 90
    assert "More than 1 per calendar month (quota)." in problem_of(decisions[1])["detail"]


FILE = """
[policies.quota]
limit = 1000
window = "month"
zone = "Europe/Berlin"
[policies.daily]
limit = 100
window = "day"
[groups.writes]
policies = ["quota", "daily"]
"""


def test_point_24_the_file_has_calendar_windows() -> None:
    """Beside the sliding ones, with a zone, which is UTC if it is left out."""
    limits = parse_rate_limits(FILE, file="limits.toml")
    assert [Calendar("month", BERLIN), Calendar("day", "UTC")] == [
        limits.presets[name].policy.calendar for name in ("quota", "daily")
    ]


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (
            '"Europe/Berlin"',
            '"Europe/Berlim"',
            'zone: "Europe/Berlim" is not valid; it accepts a name of the time',
        ),
        ('"Europe/Berlin"', "5", "zone: 5 is not valid"),
        ('"Europe/Berlin"', '"../etc/passwd"', 'zone: "../etc/passwd" is not valid'),
        ('"month"', '"30d"', "zone: only a window of day, week, month has one"),
        ('"month"', '"year"', 'window: "year" is not valid; it accepts a number and a unit'),
        ('window = "day"', 'window = "day"\nalgorithm = "token_bucket"', 'a window of a "day" has none'),
        (
            'window = "day"',
            'window = "1d"\nalgorithm = "calendar"',
            '"calendar" is not valid; there are sliding',
        ),
    ],
)
def test_point_24_a_calendar_that_can_not_be_meant_is_refused(
    before: str, after: str, complaint: str
) -> None:
    """With its line, and what is accepted."""
    with pytest.raises(RateLimitsError) as caught:
        parse_rate_limits(FILE.replace(before, after, 1), file="limits.toml")
    assert any(complaint in problem for problem in caught.value.problems), caught.value.problems

"""The headers and the problem body made from a decision."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from math import ceil
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ratelimit.headers import problem_of, rate_limit_headers, waits_of
from server.ratelimit.policies import Charge, Decision, Policy, Source, Verdict

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
STANDARD = Policy("standard", 60, 60_000)
HOURLY = Policy("api", 1000, 3_600_000)


def verdict(
    policy: Policy = STANDARD,
    *,
    allowed: bool = True,
    remaining: int = 45,
    next_release_ms: int = 12_300,
    wait_ms: int = 0,
    retryable: bool = True,
    subject: str = "user:1",
) -> Verdict:
    return Verdict(
        policy=policy,
        group="writes",
        subject=subject,
        allowed=allowed,
        limit=policy.limit,
        remaining=remaining,
        next_release_ms=next_release_ms,
        wait_ms=wait_ms,
        retryable=retryable,
        shadow=policy.shadow,
    )


def denied(policy: Policy = STANDARD, *, wait_ms: int = 22_001, subject: str = "user:1") -> Verdict:
    return verdict(
        policy, allowed=False, remaining=0, next_release_ms=wait_ms, wait_ms=wait_ms, subject=subject
    )


def decision(*verdicts: Verdict, source: Source = "redis") -> Decision:
    allowed = all(one.allowed or one.shadow for one in verdicts)
    return Decision(allowed=allowed, verdicts=verdicts, source=source)


def headers_of(decided: Decision, *, jitter: str = "") -> dict[str, str]:
    headers = rate_limit_headers(
        decided, now=NOW.timestamp(), waits=None if decided.allowed else waits_of(decided, jitter=jitter)
    )
    assert len(headers) == len(dict(headers)), "a header is there twice"
    return dict(headers)


class Item(NamedTuple):
    """An item of a structured-field list: a string and its integer parameters."""

    name: str
    parameters: dict[str, int]


_ITEM = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"((?:;[a-z*][a-z0-9_.*-]*=-?[0-9]{1,15})*)(, |$)')


def items_of(field: str) -> list[Item]:
    """Read a structured-field list (RFC 9651) of strings with integer parameters; fails on anything else."""
    items, position = [], 0
    while position < len(field):
        found = _ITEM.match(field, position)
        assert found is not None, field[position:]
        name = re.sub(r"\\(.)", r"\1", found[1])
        pairs = [pair.split("=") for pair in found[2].split(";")[1:]]
        items.append(Item(name, {key: int(value) for key, value in pairs}))
        position = found.end()
    return items


def test_point_12_an_admitted_request_is_told_its_quota() -> None:
    """All headers of a plain answer, as they go out."""
    assert headers_of(decision(verdict())) == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "45",
        "X-RateLimit-Reset": "2026-03-01T12:00:12.300Z",
        "RateLimit-Policy": '"standard";q=60;w=60',
        "RateLimit": '"standard";r=45;t=45',
    }


def test_point_12_a_refused_request_is_told_when_to_come_back() -> None:
    """The wait is rounded up to whole seconds; the instant keeps its milliseconds."""
    headers = headers_of(decision(denied(), verdict(HOURLY, remaining=900), source="redis"))
    wait_seconds = int(headers.pop("Retry-After"))
    assert wait_seconds in {23, 24}
    assert headers == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "2026-03-01T12:00:22.001Z",
        "RateLimit-Policy": '"standard";q=60;w=60, "api";q=1000;w=3600',
        "RateLimit": f'"standard";r=0;t={wait_seconds}',
    }


def test_point_12_the_policy_closest_to_exhaustion_is_the_one_in_the_plain_headers() -> None:
    """The fewest units left decide, not the order of the policies."""
    headers = headers_of(decision(verdict(remaining=45), verdict(HOURLY, remaining=3)))
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("1000", "3")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([STANDARD, HOURLY, Policy("at-once", 60, 60_000, "concurrency")]),
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_point_12_of_admissions_the_fewest_units_decide_then_the_latest_reset(
    uses: list[tuple[Policy, int, int]],
) -> None:
    """What is limited at once comes last, whatever is left of it: it has no time at which it is reset."""
    verdicts = [verdict(policy, remaining=left, next_release_ms=reset) for policy, left, reset in uses]

    headers = headers_of(decision(*verdicts))

    closest = min(
        verdicts, key=lambda one: (one.policy.algorithm == "concurrency", one.remaining, -one.next_release_ms)
    )
    shown = [headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")]
    reset = NOW + timedelta(milliseconds=closest.next_release_ms)
    expected = f"{reset:%Y-%m-%dT%H:%M:%S}.{closest.next_release_ms:03d}Z"
    assert [str(closest.limit), str(closest.remaining), expected] == shown


def test_point_12_of_several_violated_policies_the_longest_wait_counts() -> None:
    """Coming back after the shorter wait would only mean another refusal."""
    headers = headers_of(decision(denied(wait_ms=5000), denied(HOURLY, wait_ms=1_800_000)))
    assert headers["X-RateLimit-Limit"] == "1000"
    assert headers["X-RateLimit-Reset"] == "2026-03-01T12:30:00.000Z"
    assert int(headers["Retry-After"]) >= 1800
    assert [item.name for item in items_of(headers["RateLimit"])] == ["standard", "api"]


def test_point_12_an_untouched_quota_is_available_within_the_whole_window() -> None:
    """With all of r = q left, t is the window itself."""
    headers = headers_of(decision(verdict(remaining=60, next_release_ms=0)))
    assert headers["RateLimit"] == '"standard";r=60;t=60'
    assert headers["X-RateLimit-Reset"] == "2026-03-01T12:00:00.000Z"


def test_point_12_the_last_unit_spent_means_nothing_until_the_first_release() -> None:
    """With r = 0 on an admitted request, t is the first release, rounded up, and never 0."""
    assert headers_of(decision(verdict(remaining=0, next_release_ms=12_001)))["RateLimit"].endswith(";t=13")
    assert headers_of(decision(verdict(remaining=0, next_release_ms=0)))["RateLimit"].endswith(";t=1")


def test_point_12_the_window_of_a_policy_below_a_second_is_left_out() -> None:
    """The draft knows whole seconds only; half a second would round to a pace that is not the policy's."""
    burst = Policy("burst", 5, 500)
    headers = headers_of(decision(verdict(burst, remaining=4, next_release_ms=500)))
    assert (headers["RateLimit-Policy"], headers["RateLimit"]) == ('"burst";q=5', '"burst";r=4;t=1')


def test_point_12_a_shadow_policy_is_never_shown() -> None:
    """Not its quota, not its refusal, not in the body; shadow policies alone give no headers at all."""
    shadow = Policy("trial", 1, 1000, shadow=True)
    with_another = headers_of(decision(verdict(), denied(shadow)))
    assert with_another == headers_of(decision(verdict()))
    assert headers_of(decision(denied(shadow))) == {}
    assert problem_of(decision(denied(), denied(shadow)))["violated-policies"] == ["standard"]


def test_point_12_with_redis_down_the_full_quota_is_shown() -> None:
    """An open decision knows nothing; the headers are there nevertheless."""
    open_verdicts = (
        verdict(remaining=60, next_release_ms=0),
        verdict(HOURLY, remaining=1000, next_release_ms=0),
    )
    headers = headers_of(decision(*open_verdicts, source="open"))
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("60", "60")
    assert headers["RateLimit"] == '"standard";r=60;t=60, "api";r=1000;t=3600'


def test_point_12_a_policy_that_counts_two_subjects_is_one_item_with_the_scarcer_quota() -> None:
    """The draft forbids two items of one name in a field."""
    headers = headers_of(decision(verdict(remaining=45), verdict(remaining=7, subject="ip:192.0.2.1")))
    assert headers["RateLimit-Policy"] == '"standard";q=60;w=60'
    assert [(item.name, item.parameters["r"]) for item in items_of(headers["RateLimit"])] == [("standard", 7)]


def test_point_12_a_name_is_escaped_as_a_structured_field_string() -> None:
    """Quotes and backslashes in a name end neither the string nor the header."""
    headers = headers_of(decision(verdict(Policy('a"b\\c', 60, 60_000))))
    assert headers["RateLimit-Policy"] == '"a\\"b\\\\c";q=60;w=60'
    assert items_of(headers["RateLimit"])[0].name == 'a"b\\c'


def test_point_12_the_next_draft_names_its_parameters_otherwise() -> None:
    """Version 12 says a and w where 11 says r and t; nothing else differs."""
    decided = decision(verdict())
    eleven = dict(rate_limit_headers(decided, now=NOW.timestamp()))
    twelve = dict(rate_limit_headers(decided, now=NOW.timestamp(), version=12))
    assert twelve.pop("RateLimit") == '"standard";a=45;w=45'
    assert eleven.pop("RateLimit") == '"standard";r=45;t=45'
    assert eleven == twelve


def test_point_12_the_reset_instant_is_utc_and_rounded_up() -> None:
    """Another zone is the same instant; microseconds never make it earlier than it is."""
    local = timezone(timedelta(hours=2))
    now = datetime(2026, 3, 1, 14, 0, 0, 1, tzinfo=local)
    headers = dict(rate_limit_headers(decision(verdict(next_release_ms=500)), now=now.timestamp()))
    assert headers["X-RateLimit-Reset"] == "2026-03-01T12:00:00.501Z"


def test_point_12_callers_refused_together_are_told_different_times() -> None:
    """Concurrent refusals of one client are spread after its wait; the same request is told the same."""
    decided = decision(denied(HOURLY, wait_ms=600_000))
    waits = [waits_of(decided, jitter=f"request {number}").retry_after_seconds for number in range(200)]
    assert len(set(waits)) > 20
    assert set(waits) <= set(range(600, 631))
    assert len({waits_of(decided, jitter="request 1").retry_after_seconds for _ in range(5)}) == 1


def test_point_12_different_clients_are_told_different_times() -> None:
    """Without anything else to tell them apart, the subject spreads them."""
    told = {
        waits_of(decision(denied(HOURLY, wait_ms=600_000, subject=f"user:{number}"))).retry_after_seconds
        for number in range(200)
    }
    assert len(told) > 20


def test_point_12_a_first_refusal_is_never_sent_past_the_window() -> None:
    """After the whole window everything is free again; who asks on and on may be told a little more."""
    just_denied = denied(wait_ms=59_990)
    first = {
        waits_of(decision(just_denied), jitter=f"request {number}").retry_after_seconds
        for number in range(50)
    }
    asking_on = {
        waits_of(decision(just_denied, source="local-deny"), jitter=f"request {number}").retry_after_seconds
        for number in range(50)
    }
    assert first == {60}
    assert asking_on == {60, 61, 62, 63}


def test_point_12_the_body_of_a_refusal_is_the_registered_problem() -> None:
    """Type and extension member come from the draft; the wait is the header's."""
    decided = decision(denied(), verdict(HOURLY))
    body = problem_of(decided, waits=waits_of(decided, jitter="request 1"))
    wait = headers_of(decided, jitter="request 1")["Retry-After"]
    assert body == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": f"More than 60 per minute (standard). Try again in {wait} s.",
        "violated-policies": ["standard"],
    }


def test_point_12_a_cost_above_the_limit_is_another_problem_and_no_wait_is_told() -> None:
    """Such a request fails at any time: no Retry-After, whatever the other policies say."""
    hopeless = verdict(allowed=False, remaining=60, next_release_ms=0, retryable=False)
    decided = decision(hopeless, denied(HOURLY, wait_ms=600_000))
    body = problem_of(decided)
    assert "Retry-After" not in headers_of(decided)
    assert waits_of(decided).retry_after_seconds is None
    assert body["type"] == "urn:problem-type:mastery:cost-above-limit"
    assert body["violated-policies"] == ["standard"]
    assert "Try again" not in body["detail"]


def test_point_12_an_admitted_request_has_no_problem() -> None:
    """Asking for the body of a refusal that was none is a mistake of the caller."""
    with pytest.raises(ValueError, match="allowed"):
        problem_of(decision(verdict()))
    with pytest.raises(ValueError, match="allowed"):
        waits_of(decision(verdict()))


@pytest.mark.parametrize(
    ("window_ms", "spoken"),
    [
        (86_400_000, "day"),
        (900_000, "15 minutes"),
        (1000, "second"),
        (90_000, "90 seconds"),
        (1500, "1500 ms"),
    ],
)
def test_point_12_windows_are_spoken_in_their_largest_whole_unit(window_ms: int, spoken: str) -> None:
    """A person reads the detail."""
    body = problem_of(decision(denied(Policy("auth", 5, window_ms), wait_ms=1000)))
    assert f"More than 5 per {spoken} (auth)." in body["detail"]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    return Policy(
        name=draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)),
        limit=draw(st.integers(1, 10**6)),
        window_ms=draw(st.integers(1, 10**8)),
        shadow=draw(st.booleans()),
    )


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    verdicts = []
    for policy in draw(st.lists(policies(), min_size=1, max_size=4, unique_by=lambda policy: policy.name)):
        allowed = draw(st.booleans())
        remaining = draw(st.integers(0, policy.limit))
        retryable = allowed or draw(st.booleans())
        one = verdict(
            policy,
            allowed=allowed,
            remaining=remaining,
            next_release_ms=draw(st.integers(0, policy.window_ms)) if remaining < policy.limit else 0,
            wait_ms=0 if allowed or not retryable else draw(st.integers(1, policy.window_ms)),
            retryable=retryable,
        )
        verdicts.append(one._replace(limit=draw(st.integers(max(1, remaining), policy.limit))))
    return decision(*verdicts, source=draw(st.sampled_from(["redis", "local-deny", "fallback"])))


@given(decided=decisions(), jitter=st.text(max_size=5))
def test_point_12_the_headers_keep_what_they_promise(decided: Decision, jitter: str) -> None:
    """The rules of the effective window, for every policy, whatever the decision."""
    shown = [one for one in decided.verdicts if not one.shadow]
    headers = headers_of(decided, jitter=jitter)
    if not shown:
        assert headers == {}
        return
    policy_items = {item.name: item.parameters for item in items_of(headers["RateLimit-Policy"])}
    limit_items = {item.name: item.parameters for item in items_of(headers["RateLimit"])}
    listed = shown if decided.allowed else list(decided.violated)
    assert set(policy_items) == {one.policy.name for one in shown}
    assert set(limit_items) == {one.policy.name for one in listed}
    for one in shown:
        window = {"w": ceil(one.policy.window_ms / 1000)} if one.policy.window_ms >= 1000 else {}
        assert policy_items[one.policy.name] == {"q": one.limit, **window}
    for one in listed:
        quota, window_seconds = limit_items[one.policy.name]["r"], limit_items[one.policy.name]["t"]
        assert 0 <= quota <= one.remaining
        assert window_seconds >= 1
        assert quota * one.policy.window_ms <= one.limit * window_seconds * 1000, "a faster pace than allowed"
        if one.allowed or not one.retryable:
            assert quota == one.remaining
            assert window_seconds * 1000 >= one.next_release_ms
        else:
            assert window_seconds * 1000 >= one.wait_ms


@given(decided=decisions(), jitter=st.text(max_size=5))
def test_point_12_retry_after_is_on_refusals_that_a_wait_ends_and_is_never_too_short(
    decided: Decision, jitter: str
) -> None:
    """The largest effective window, not below any wait, at most a twentieth or a second above the longest."""
    headers = headers_of(decided, jitter=jitter)
    hopeful = not decided.allowed and all(one.retryable for one in decided.violated)
    assert hopeful == ("Retry-After" in headers)
    if hopeful:
        told = int(headers["Retry-After"])
        longest_ms = max(one.wait_ms for one in decided.violated)
        longest_seconds = ceil(longest_ms / 1000)
        assert told * 1000 >= longest_ms
        assert told <= longest_seconds + max(1, longest_seconds // 20)
        assert told == max(item.parameters["t"] for item in items_of(headers["RateLimit"]))
        assert (
            f"Try again in {told} s." in problem_of(decided, waits=waits_of(decided, jitter=jitter))["detail"]
        )


@given(decided=decisions())
def test_point_12_the_plain_headers_speak_of_a_policy_that_is_shown(decided: Decision) -> None:
    """Limit, remaining and reset belong to one verdict: on refusal one that refused, else the scarcest."""
    headers = headers_of(decided)
    if headers:
        shown = [one for one in decided.verdicts if not one.shadow]
        candidates = {
            (str(one.limit), str(one.remaining))
            for one in (decided.violated or shown)
            if decided.violated or one.remaining == min(other.remaining for other in shown)
        }
        assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) in candidates
        assert datetime.fromisoformat(headers["X-RateLimit-Reset"]) >= NOW
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", headers["X-RateLimit-Reset"])


def test_point_26_the_successor_names_the_cost_and_the_partition() -> None:
    """From version 12 on an item has what the request costs, and one policy has an item for each of its partitions."""
    policy = Policy("standard", 60, 60_000)
    charges = [Charge(policy, "g", "user:1", 5), Charge(policy, "g", "ip:192.0.2.1", 2)]
    decided = Decision(
        True,
        tuple(
            Verdict(policy, "g", charge.subject, True, 60, 60 - charge.cost, 60_000, 0) for charge in charges
        ),
        "redis",
    )
    eleven, plain, twelve = (
        dict(rate_limit_headers(decided, now=0, **options))["RateLimit"].split(", ")
        for options in ({"charges": charges}, {"version": 12}, {"version": 12, "charges": charges})
    )
    assert ['"standard";r=55;t=60'] == eleven
    assert ['"standard";a=55;w=60'] == plain
    found = [
        re.fullmatch(r'"standard";a=(\d+);w=(\d+);c=(\d+);pk=:([A-Za-z0-9+/]+={0,2}):', item)
        for item in twelve
    ]
    assert [("55", "60", "5"), ("58", "60", "2")] == [match.groups()[:3] for match in found if match]
    partitions = {match[4] for match in found if match}
    assert 2 == len(partitions)
    assert not any("MTkyLjAuMi4x" in partition for partition in partitions)

"""What a request is charged, and where a subject may have been counted."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from uuid import UUID

import pytest

from server.domain.identity.subjects import subject_of_email, subject_of_family
from server.ratelimit.limits import RateLimits
from server.ratelimit.limits_file import load_rate_limits, parse_rate_limits
from server.ratelimit.policies import Charge

USER = UUID("0b7d4f2e-58c5-4d38-9d5c-2f6a4a3a1c11")
IPV4 = ip_address("192.0.2.1")
IPV6 = ip_address("2001:db8:1:2::5")


@pytest.fixture(scope="module")
def limits() -> RateLimits:
    return load_rate_limits(Path(__file__).parents[2] / "config/ratelimits.toml")


def spelled(charges: tuple[Charge, ...]) -> list[tuple[str, str, str]]:
    return [(charge.policy.name, charge.group, charge.subject) for charge in charges]


def test_a_signed_in_client_pays_as_a_user_per_minute_and_per_hour(limits: RateLimits) -> None:
    """The preset counts the group, the hourly policy all groups together."""
    for group, preset in (("reads", "generous"), ("ratings", "standard"), ("admin-destructive", "strict")):
        charges = limits.make_charges(group, user_id=USER, address=IPV4)
        assert spelled(charges) == [(preset, group, f"user:{USER}"), ("api", "*", f"user:{USER}")]


def test_a_stranger_pays_as_an_address_and_not_by_the_hour(limits: RateLimits) -> None:
    """A refused token is a stranger, too; the hourly policy is for users."""
    assert spelled(limits.make_charges("writes", user_id=None, address=IPV4)) == [
        ("standard", "writes", "ip:192.0.2.1")
    ]


def test_presets_do_not_share_a_budget(limits: RateLimits) -> None:
    """No two groups charge the same policy, group and subject, but for the one that is shared."""
    of_groups = [
        set(spelled(limits.make_charges(group, user_id=USER, address=IPV4))) for group in limits.groups
    ]
    everywhere = [charge for charges in of_groups for charge in charges if charge[0] != "api"]
    assert len(everywhere) == len(set(everywhere))


def test_a_login_is_counted_by_email_and_by_address(limits: RateLimits) -> None:
    """Signed in or not; and apart from registrations, which are counted by address alone."""
    email = subject_of_email("ada@example.org")
    expected = [("auth", "login", email), ("auth-address", "login", "ip:192.0.2.1")]
    for user_id in (None, USER):
        charges = limits.make_charges("login", user_id=user_id, address=IPV4, named=email)
        assert spelled(charges) == expected
    registering = limits.make_charges("register", user_id=None, address=IPV4, named=email)
    assert spelled(registering) == [("auth-address", "register", "ip:192.0.2.1")]


def test_a_login_without_an_email_is_counted_by_address_alone(limits: RateLimits) -> None:
    """A body that names no address is still an attempt, and so is one that names something else."""
    for named in (None, subject_of_family(b"a family")):
        charges = limits.make_charges("login", user_id=None, address=IPV4, named=named)
        assert spelled(charges) == [("auth-address", "login", "ip:192.0.2.1")]


def test_an_ipv6_stranger_is_also_counted_by_the_wider_network(limits: RateLimits) -> None:
    """The /64 and, at a higher limit, the /48 around it, in the same decision."""
    charges = limits.make_charges("refresh", user_id=None, address=IPV6)
    assert spelled(charges) == [
        ("refresh-address", "refresh", "ip:2001:db8:1:2::/64"),
        ("refresh-wide", "refresh", "ip:2001:db8:1::/48"),
    ]
    assert charges[0].policy.limit < charges[1].policy.limit


def test_a_cost_is_charged_under_every_policy(limits: RateLimits) -> None:
    """A batch pays for all of its parts, by the minute and by the hour."""
    charges = limits.make_charges("ratings", user_id=USER, address=IPV4, cost=25)
    assert [charge.cost for charge in charges] == [25, 25]


def test_an_unknown_group_is_an_error(limits: RateLimits) -> None:
    """A route that names a group there is not must not go unlimited."""
    with pytest.raises(KeyError):
        limits.make_charges("raeds", user_id=None, address=IPV4)


PLANS = """
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
[plans.team]
api = 5000
"""


@pytest.mark.parametrize(("plan", "hourly"), [("team", 5000), ("free", 1000), (None, 1000)])
def test_a_plan_changes_the_limits_it_names_for_its_users(plan: str | None, hourly: int) -> None:
    """Other policies, other plans and strangers stay as they are."""
    limits = parse_rate_limits(PLANS, file="plans.toml")
    charges = limits.make_charges("writes", user_id=USER, address=IPV4, plan=plan)
    assert [charge.policy.limit for charge in charges] == [60, hourly]
    stranger = limits.make_charges("writes", user_id=None, address=IPV4, plan=plan)
    assert [charge.policy.limit for charge in stranger] == [60]
    assert [charge.policy.limit for charge in limits.policies_for_subject(f"user:{USER}", plan=plan)] == [
        60,
        hourly,
    ]


@pytest.mark.parametrize(
    ("user_id", "subject"),
    [
        (USER, f"user:{USER}"),
        (None, "ip:2001:db8:1:2::/64"),
        (None, "ip:2001:db8:1::/48"),
        (None, subject_of_email("ada@example.org")),
        (None, subject_of_family(b"a family")),
    ],
)
def test_everything_a_subject_is_charged_under_can_be_looked_up(
    limits: RateLimits, user_id: UUID | None, subject: str
) -> None:
    """What peek shows and reset clears is exactly what some request of this subject is charged."""
    charged = {
        charge
        for group in limits.groups
        for charge in limits.make_charges(group, user_id=user_id, address=IPV6, named=subject)
        if charge.subject == subject
    }
    found = limits.policies_for_subject(subject)
    assert charged == set(found)
    assert len(found) == len(charged) > 0


def test_two_readings_of_one_text_limit_the_same() -> None:
    """A file that was only touched is no change; another limit is one."""
    limits = parse_rate_limits(PLANS, file="plans.toml")
    assert limits.same_as(parse_rate_limits(PLANS, file="elsewhere.toml"))
    assert not limits.same_as(parse_rate_limits(PLANS.replace("5000", "6000"), file="plans.toml"))


def test_the_groups_that_count_by_what_a_body_names_are_known(limits: RateLimits) -> None:
    """So that a body is read before the decision only where the decision needs it."""
    assert {group for group in limits.groups if limits.counts_by_name(group)} == {"login", "refresh"}

"""Point 23: overrides and exemptions of single subjects, with an end, lists of networks, and blocks."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.development import EmbeddedServer
from server.domain.identity.subjects import parse_subject
from server.ratelimit import Charge, Limiter, Policy
from server.ratelimit.limits import RateLimits
from server.ratelimit.limits_file import RateLimitsError, parse_rate_limits
from server.ratelimit.overrides import (
    ANY_POLICY,
    BLOCKS_KEY,
    MAX_DURATION_MS,
    MAX_OVERRIDES,
    OVERRIDES_KEY,
    Blocks,
    OverridesFull,
)
from server.ratelimit.policies import BlockedCharges, block_key
from server.ratelimit.subjects import Networks
from server.stores.redis.link import RedisLink
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.support.properties import examples
from tests.support.waiting import wait_until

HOUR_MS = 3_600_000
POLICIES = {name: Policy(name, limit, HOUR_MS) for name, limit in (("a", 4), ("b", 6))}
subjects = itertools.count()


@dataclass(frozen=True, slots=True)
class Step:
    """A request, or what an operator does."""

    kind: Literal["request", "override", "exempt", "end", "block", "reset"]
    policy: str
    number: int


steps = st.builds(
    Step,
    st.sampled_from(["request", "request", "request", "override", "exempt", "end", "block", "reset"]),
    st.sampled_from([*POLICIES, ANY_POLICY]),
    st.integers(1, 8),
)


@dataclass(slots=True)
class Oracle:
    """What has been charged, and what holds."""

    used: dict[str, int] = field(default_factory=lambda: dict.fromkeys(POLICIES, 0))
    overrides: dict[str, int | None] = field(default_factory=dict)
    is_blocked: bool = False

    def request(self, cost: int) -> bool:
        """Whether a request passes; it is charged under each policy from which it is not exempt."""
        limits = {
            name: self.overrides.get(name, self.overrides.get(ANY_POLICY, policy.limit))
            for name, policy in POLICIES.items()
        }
        counted = {name: limit for name, limit in limits.items() if limit is not None}
        if (self.is_blocked and counted) or any(
            self.used[name] + cost > limit for name, limit in counted.items()
        ):
            return False
        for name in counted:
            self.used[name] += cost
        return True


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=5, max_size=40))
def test_point_23_overrides_are_exact_in_random_histories(
    shared_redis: EmbeddedServer, history: list[Step]
) -> None:
    """Whatever operators do at one process, another one decides as the oracle does once it has looked."""
    asyncio.run(_play(shared_redis.url, history))


async def _play(url: str, history: list[Step]) -> None:
    subject, oracle = f"user:overridden-{next(subjects)}", Oracle()
    link = RedisLink(url, deadline_ms=GENEROUS_DEADLINE_MS, connect_timeout_ms=GENEROUS_DEADLINE_MS)
    await link.start()
    here, there = [Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS) for _ in range(2)]
    charges = [Charge(policy, "g", subject) for policy in POLICIES.values()]
    for step in history:
        match step.kind:
            case "request":
                asked = [Charge(policy, "g", subject, step.number) for policy in POLICIES.values()]
                assert oracle.request(step.number) == (await there.decide(asked)).allowed
                continue
            case "override" if step.policy != ANY_POLICY:
                await here.override(subject, [step.policy], limit=step.number, duration_ms=HOUR_MS)
                oracle.overrides[step.policy] = step.number
            case "exempt":
                await here.override(subject, [step.policy], limit=None, duration_ms=HOUR_MS)
                oracle.overrides[step.policy], oracle.is_blocked = None, False
            case "end":
                await here.overrides.end(subject, [step.policy])
                oracle.overrides.pop(step.policy, None)
            case "block":
                await here.block(subject, duration_ms=HOUR_MS)
                oracle.is_blocked, oracle.overrides = True, {}
            case "reset":
                await here.reset(subject, charges)
                oracle.is_blocked, oracle.used = False, dict.fromkeys(POLICIES, 0)
        await there.overrides.refresh()
        there.forget_denials()
    await here.reset(subject, charges)
    await here.overrides.end(subject)
    await link.execute("DEL", OVERRIDES_KEY)
    for limiter in (here, there):
        await limiter.close()
    await link.close()


async def test_point_23_all_processes_agree_soon(link: RedisLink, limiter: Limiter, subject: str) -> None:
    """A process learns of an override within a second, without a request, and of its end likewise."""
    other = Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS)
    await other.start()
    charges = [Charge(Policy("one", 1, HOUR_MS), "g", subject)]
    assert [True, False] == [(await other.decide(charges)).allowed for _ in range(2)]
    await limiter.override(subject, ["one"], limit=3, duration_ms=HOUR_MS)
    await wait_until(lambda: bool(other.overrides.of(subject)), "the other process to follow")
    assert [True, True, False] == [(await other.decide(charges)).allowed for _ in range(3)]
    assert 1 == await limiter.overrides.end(subject)
    await wait_until(lambda: not other.overrides.of(subject), "the other process to follow")
    assert (await other.peek(charges)).verdicts[0].limit == 1
    await other.close()


async def test_point_23_an_override_ends_by_itself(limiter: Limiter, link: RedisLink, subject: str) -> None:
    """At its time it is not in force any more, without a look at Redis; its key is gone later."""
    charges = [Charge(Policy("one", 1, HOUR_MS), "g", subject)]
    await limiter.override(subject, [ANY_POLICY], limit=None, duration_ms=150)
    assert (await limiter.decide(charges)).verdicts == ()
    await wait_until(lambda: not limiter.overrides.of(subject), "its end")
    assert [True, False] == [(await limiter.decide(charges)).allowed for _ in range(2)]
    assert 0 < await link.execute("PTTL", OVERRIDES_KEY) <= MAX_DURATION_MS + 1000 + HOUR_MS


async def test_point_23_what_is_charged_under_an_override_is_given_back(
    limiter: Limiter, subject: str
) -> None:
    """A refund finds what the decision has charged: nothing for the exempt policy, all of the others."""
    charges = [Charge(Policy(name, 5, HOUR_MS), "g", subject, 2) for name in ("one", "two")]
    await limiter.override(subject, ["one"], limit=None, duration_ms=HOUR_MS)
    assert ["two"] == [
        verdict.policy.name for verdict in (await limiter.decide(charges, request_id="r")).verdicts
    ]
    assert (0, 1) == await limiter.settle(charges, request_id="r", costs=[1, 1])
    assert [5, 4] == [verdict.remaining for verdict in (await limiter.peek(charges)).verdicts]
    await limiter.overrides.end(subject)


async def test_point_23_there_are_only_so_many(limiter: Limiter, link: RedisLink, subject: str) -> None:
    """What every process holds in memory is bounded; those that have ended make room."""
    names = [f"p{number}" for number in range(MAX_OVERRIDES)]
    await limiter.override(subject, names, limit=5, duration_ms=HOUR_MS)
    with pytest.raises(OverridesFull):
        await limiter.override(subject, ["more"], limit=5, duration_ms=HOUR_MS)
    await limiter.override(subject, ["p0"], limit=7, duration_ms=HOUR_MS)  # known: no more than before
    assert MAX_OVERRIDES == await limiter.overrides.end(subject)
    await limiter.override(subject, ["more"], limit=5, duration_ms=HOUR_MS)
    await link.execute("DEL", OVERRIDES_KEY)


@pytest.mark.parametrize(
    ("policies", "limit", "duration_ms"),
    [
        ([], 1, 1),
        (["a"], 0, 1),
        (["a"], True, 1),
        (["a"], 1, 0),
        (["a"], 1, MAX_DURATION_MS + 1),
        (["*"], 5, 1),
    ],
)
async def test_point_23_misuse_is_loud(
    limiter: Limiter, subject: str, policies: list[str], limit: int | None, duration_ms: int
) -> None:
    """An override that can't be meant is refused before Redis is asked."""
    with pytest.raises(ValueError, match=r"override|one limit"):
        await limiter.override(subject, policies, limit=limit, duration_ms=duration_ms)


async def test_point_23_a_block_is_named_with_its_end(limiter: Limiter, subject: str) -> None:
    """How long it lasts can be asked, and a reset ends it."""
    assert await limiter.block_left_ms(subject) is None
    await limiter.block(subject, duration_ms=60_000)
    left_ms = await limiter.block_left_ms(subject)
    assert left_ms is not None
    assert 0 < left_ms <= 60_000
    await limiter.reset(subject, [])
    assert await limiter.block_left_ms(subject) is None


FILE = """
[policies.standard]
limit = 2
window = "1m"
[groups.writes]
policies = ["standard"]
[networks]
allow = ["10.0.0.0/8", "2001:db8::/32", "198.51.100.7"]
block = ["203.0.113.0/24", "10.66.0.0/16"]
[overrides."ip:2001:DB8:1::9"]
limits = { standard = 50 }
until = 2099-01-01T00:00:00+01:00
[overrides."ip:192.0.2.1"]
exempt = true
until = 2099-01-01T00:00:00Z
[overrides."ip:192.0.2.2"]
exempt = ["standard"]
until = 2001-01-01T00:00:00Z
"""


def parse(text: str) -> RateLimits:
    """The limits in a file's text, with subjects as the service reads them."""
    return parse_rate_limits(text, file="limits.toml", parse_subject=parse_subject)


def charges_of(limits: RateLimits, address: str) -> tuple[Charge, ...]:
    """A stranger's charges."""
    return limits.charges_for(
        "writes", user_key=None, plan=None, client_ip=address, address=ip_address(address)
    )


async def test_point_23_the_file_lists_networks(limiter: Limiter) -> None:
    """Requests from some are not limited, from others refused whatever they are; the narrowest decides."""
    limits = parse(FILE)
    assert () == charges_of(limits, "10.1.2.3")
    assert () == charges_of(limits, "2001:db8::1")
    assert () == charges_of(limits, "198.51.100.7")
    for address in ("203.0.113.9", "10.66.1.1"):
        refused = await limiter.decide(charges_of(limits, address))
        assert (False, "block-list") == (refused.allowed, refused.source)
    assert 1 == len(charges_of(limits, "198.51.100.8"))


async def test_point_23_the_file_overrides_limits(limiter: Limiter) -> None:
    """Until their time, for subjects in any spelling; what has ended is not in force."""
    limits = parse(FILE)
    limiter.overrides.use_file(limits.overrides)
    shown = {
        subject: [(one.policy, one.limit, one.source) for one in limiter.overrides.of(subject)]
        for subject in ("ip:2001:db8:1::/64", "ip:192.0.2.1", "ip:192.0.2.2")
    }
    assert {
        "ip:2001:db8:1::/64": [("standard", 50, "file")],
        "ip:192.0.2.1": [("*", None, "file")],
        "ip:192.0.2.2": [],
    } == shown
    assert (await limiter.decide(charges_of(limits, "192.0.2.1"))).verdicts == ()
    limiter.overrides.use_file(())
    assert not limiter.overrides.in_force


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ('"10.66.0.0/16"', '"10.66.0.1/16"', "networks.block: 10.66.0.1/16 has host bits set"),
        ('"10.66.0.0/16"', '"10.0.0.0/8"', "networks: 10.0.0.0/8 is in both lists"),
        ('"10.66.0.0/16"', "5", 'it accepts a list of networks, as in ["192.0.2.0/24"'),
        ("allow =", "alow =", 'there is no such key; did you mean "allow"?'),
        ("{ standard = 50 }", "{ standrad = 50 }", 'no policy "standrad"; did you mean "standard"?'),
        (
            "{ standard = 50 }",
            "{ standard = 0 }",
            "limits.standard: 0 is not valid; it accepts a whole number",
        ),
        ("exempt = true", "exempt = false", "exempt: false is not valid; it accepts true, or a list"),
        (
            "until = 2001-01-01T00:00:00Z",
            "until = 2001-01-01",
            "until: 2001-01-01 is not valid; it accepts a time",
        ),
        ("until = 2001-01-01T00:00:00Z", "", "until: it is missing; it accepts a time with its zone"),
        ('exempt = ["standard"]', "", "it changes nothing; write limits"),
        ("ip:192.0.2.2", "ip:192.0.2.0/24", "192.0.2.0/24 is not counted as one"),
    ],
)
def test_point_23_a_mistake_in_the_file_is_reported_with_its_line(
    before: str, after: str, complaint: str
) -> None:
    """What would except nobody, or everybody, is refused."""
    with pytest.raises(RateLimitsError) as caught:
        parse(FILE.replace(before, after, 1))
    assert any(complaint in problem for problem in caught.value.problems), caught.value.problems


networks = st.builds(
    lambda bits, length: IPv4Network((bits >> (32 - length) << (32 - length), length)),
    st.integers(0, 255).map(lambda byte: byte << 24 | byte << 4),
    st.integers(1, 32),
)


@settings(max_examples=examples(100))
@given(
    st.frozensets(networks, max_size=8),
    st.frozensets(networks, max_size=8),
    st.integers(0, 255).map(lambda byte: byte << 24 | byte << 4 | byte >> 6),
)
def test_point_23_the_narrowest_network_decides(
    allow: frozenset[IPv4Network], block: frozenset[IPv4Network], bits: int
) -> None:
    """As a look through both lists says."""
    block -= allow
    address = IPv4Address(bits)
    around = [
        (network.prefixlen, name, network)
        for name, listed in (("allow", allow), ("block", block))
        for network in listed
        if address in network
    ]
    expected = max(around)[1:] if around else None
    assert expected == Networks(allow, block).find(address)


def test_point_23_blocked_charges_are_remembered_by_client() -> None:
    """A flood from a blocked network is refused from memory: the same charges come again."""
    limits = parse(FILE)
    first, again = [charges_of(limits, "203.0.113.9") for _ in range(2)]
    assert isinstance(first, BlockedCharges)
    assert first is again


async def test_blocks_are_listed_with_their_ends(link: RedisLink) -> None:
    """Those that end first come first, each once, however often it was set; the list lives no longer than they do."""
    blocks = Blocks(link)
    await link.execute("UNLINK", BLOCKS_KEY)
    assert [] == await blocks.first(10)
    for subject, seconds in (("ip:192.0.2.1", 600), ("user:é", 60), ("ip:192.0.2.1", 120)):
        await blocks.set(subject, duration_ms=seconds * 1000)
    listed = await blocks.first(10)
    assert ["user:é", "ip:192.0.2.1"] == [block.subject for block in listed]
    for block, seconds in zip(listed, (60, 120), strict=True):
        assert seconds - 30 < block.ends_at - time.time() <= seconds
    assert ["user:é"] == [block.subject for block in await blocks.first(1)]
    assert 60_000 < await link.execute("PTTL", BLOCKS_KEY) <= 602_000


async def test_what_is_listed_is_blocked(link: RedisLink) -> None:
    """A block that was ended is on the list no more, whoever has ended it."""
    blocks = Blocks(link)
    await blocks.set("ip:192.0.2.9", duration_ms=60_000)
    await link.execute("UNLINK", block_key("ip:192.0.2.9"))
    assert "ip:192.0.2.9" not in [block.subject for block in await blocks.first(1000)]
    assert await blocks.left_ms("ip:192.0.2.9") is None

"""The rate limits file: what it may say, and what is said about mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.api.routes import limit_groups
from server.ratelimit.limits import CHARGINGS, RateLimits, stays_charged
from server.ratelimit.limits_file import RateLimitsError, load_rate_limits, parse_rate_limits
from server.ratelimit.policies import MAX_LIMIT, MAX_WINDOW_MS, Policy
from server.ratelimit.subjects import SubjectKind

PROJECT = Path(__file__).parents[2]
ROUTE_GROUPS = (
    "reads",
    "ratings",
    "writes",
    "admin-reads",
    "admin-writes",
    "admin-destructive",
    "login",
    "register",
    "refresh",
    "unmatched",
)


def parse(text: str, required_groups: tuple[str, ...] = ()) -> RateLimits:
    return parse_rate_limits(text, file="limits.toml", required_groups=required_groups)


def problems_of(text: str, required_groups: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(RateLimitsError) as caught:
        parse(text, required_groups)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def with_policy(line: str) -> str:
    """A file with one policy, with a line of its own on line 4."""
    return (
        f'[policies.standard]\nlimit = 60\nwindow = "1m"\n{line}\n[groups.writes]\npolicies = ["standard"]\n'
    )


def test_the_file_of_the_service_has_the_presets_of_the_contract() -> None:
    """Limits and windows that clients were promised, for every group the routes need."""
    limits = load_rate_limits(PROJECT / "config/ratelimits.toml", required_groups=ROUTE_GROUPS)
    minute_ms = 60_000
    assert [
        limits.presets[name].policy
        for name in (
            "strict",
            "standard",
            "generous",
            "auth",
            "auth-address",
            "refresh",
            "refresh-address",
            "api",
        )
    ] == [
        Policy("strict", 10, minute_ms),
        Policy("standard", 60, minute_ms),
        Policy("generous", 100, minute_ms),
        Policy("auth", 5, 15 * minute_ms, on_failure="local"),
        Policy("auth-address", 20, 15 * minute_ms, on_failure="local"),
        Policy("refresh", 10, 15 * minute_ms),
        Policy("refresh-address", 300, 15 * minute_ms),
        Policy("api", 1000, 60 * minute_ms),
    ]


def test_the_file_for_load_tests_differs_in_its_limits_alone() -> None:
    """What is measured is the service with its policies, none of which is in the way."""
    real = load_rate_limits(PROJECT / "config/ratelimits.toml")
    raised = load_rate_limits(PROJECT / "bench/ratelimits.toml", required_groups=ROUTE_GROUPS)
    assert real.groups == raised.groups
    at_once = [name for name, preset in real.presets.items() if preset.policy.algorithm == "concurrency"]
    assert ["at-once"] == at_once  # a load test is to have many at once: there it has no such policy
    assert {
        name: preset.policy.window_ms for name, preset in real.presets.items() if name not in at_once
    } == {name: preset.policy.window_ms for name, preset in raised.presets.items()}
    assert all(preset.policy.limit >= 10_000_000 for preset in raised.presets.values())


def test_a_policy_says_everything_a_policy_can() -> None:
    """Every key reaches the policy; what is left out has its default."""
    limits = parse(
        '[policies.burst]\nlimit = 1_000\nwindow = "500ms"\nalgorithm = "token_bucket"\n'
        'on_failure = "closed"\nshadow = true\nshare = true\nsubject = "address"\n'
        '[policies.plain]\nlimit = 1\nwindow = "1h"\n'
    )
    assert limits.presets["burst"].policy == Policy("burst", 1000, 500, "token_bucket", "closed", shadow=True)
    assert limits.presets["plain"].policy == Policy(
        "plain", 1, 3_600_000, "sliding_window", "open", shadow=False
    )
    assert (limits.presets["burst"].share, limits.presets["burst"].subject) == (True, "address")
    assert (limits.presets["plain"].share, limits.presets["plain"].subject) == (False, "client")


@pytest.mark.parametrize(
    ("window", "window_ms"),
    [("1ms", 1), ("10s", 10_000), ("15m", 900_000), ("2h", 7_200_000), ("366d", MAX_WINDOW_MS)],
)
def test_a_window_is_a_number_and_a_unit(window: str, window_ms: int) -> None:
    """Milliseconds to days."""
    limits = parse(f'[policies.plain]\nlimit = 1\nwindow = "{window}"')
    assert limits.presets["plain"].policy.window_ms == window_ms


@pytest.mark.parametrize(
    "window", ['"1x"', '"m"', '"0s"', '"-1s"', '"1.5h"', '"1 m"', '"367d"', "60", '""', '"\u0661s"']
)
def test_any_other_window_is_refused(window: str) -> None:
    """The message repeats it and shows how windows are written."""
    (problem,) = problems_of(f"[policies.plain]\nlimit = 1\nwindow = {window}")
    assert problem.startswith(
        f"limits.toml:3: policies.plain.window: {window} is not valid; it accepts a number"
    )


@pytest.mark.parametrize("limit", ["0", "-5", "1.0", '"60"', "true", str(MAX_LIMIT + 1)])
def test_a_limit_is_a_whole_number_above_zero(limit: str) -> None:
    """Neither text nor a truth value nor a fraction counts requests."""
    (problem,) = problems_of(f'[policies.plain]\nlimit = {limit}\nwindow = "1m"')
    assert problem == (
        f"limits.toml:2: policies.plain.limit: {limit} is not valid; "
        f"it accepts a whole number from 1 to {MAX_LIMIT}"
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (
            'algoritm = "token_bucket"',
            'policies.standard.algoritm: there is no such key; did you mean "algorithm"?',
        ),
        (
            'algorithm = "sliding"',
            'policies.standard.algorithm: "sliding" is not valid; did you mean "sliding_window"?',
        ),
        ('on_failure = "shut"', "there are open, closed, local"),
        ('subject = "adress"', 'did you mean "address"?'),
        ("subject = 5", "policies.standard.subject: 5 is not valid; there are client, user, address"),
        ("shadow = 1", "policies.standard.shadow: 1 is not valid; it accepts true or false"),
        ('share = "yes"', 'policies.standard.share: "yes" is not valid; it accepts true or false'),
        ("wndow.x = 3", "policies.standard.wndow"),
    ],
)
def test_a_wrong_key_or_word_is_named_with_its_line(line: str, complaint: str) -> None:
    """Where it stands, what it is, what it could have been."""
    (problem,) = problems_of(with_policy(line))
    assert problem.startswith("limits.toml:4: ")
    assert complaint in problem


CHARGED = """
[policies.guesses]
limit = 5
window = "15m"
subject = "email"
[groups.login]
policies = ["guesses"]
charge = {charge}
"""


@pytest.mark.parametrize("charge", ["all", "failures", "successes"])
def test_share_04_a_group_says_which_requests_stay_charged(charge: str) -> None:
    """All of them unless it says otherwise."""
    limits = parse(CHARGED.format(charge=f'"{charge}"'))
    assert (charge, "all") == (limits.charging_of("login"), limits.charging_of("*"))
    assert "all" == parse(CHARGED.replace("charge = {charge}", "")).charging_of("login")


@pytest.mark.parametrize(
    ("charge", "complaint"),
    [
        ('"failure"', 'did you mean "failures"?'),
        ("true", "there are all, failures, successes"),
        ("[]", "there are"),
    ],
)
def test_share_04_any_other_charge_is_refused_with_its_line(charge: str, complaint: str) -> None:
    """What it is, what it could have been, and where it stands."""
    (problem,) = problems_of(CHARGED.format(charge=charge))
    assert problem.startswith(f"limits.toml:8: groups.login.charge: {charge} is not valid; ")
    assert complaint in problem


def test_share_04_a_policy_counts_what_its_requests_name() -> None:
    """By e-mail where the body names one: anywhere else it would count nobody, and say nothing."""
    text = CHARGED.format(charge='"failures"')
    parse_rate_limits(text, file="limits.toml", required_groups={"login": frozenset({"email"})})
    for kinds in (frozenset[SubjectKind](), frozenset[SubjectKind]({"token-family"})):
        with pytest.raises(RateLimitsError) as caught:
            parse_rate_limits(text, file="limits.toml", required_groups={"login": kinds})
        assert (
            'limits.toml:7: groups.login.policies: "guesses" counts by email, and these requests name none',
        ) == caught.value.problems


def test_share_04_the_routes_name_what_their_policies_count() -> None:
    """The file of the service and the one for load tests fit the routes."""
    for folder in ("config", "bench"):
        load_rate_limits(PROJECT / folder / "ratelimits.toml", required_groups=limit_groups())


def test_share_04_what_stays_charged() -> None:
    """By the answer: what was not judged is neither a failure nor a success."""
    kept = {
        charge: [
            status
            for status in (200, 304, 400, 401, 413, 422, 429, 499, 500, 503)
            if stays_charged(charge, status)
        ]
        for charge in CHARGINGS
    }
    assert [400, 401, 413, 422, 429] == kept["failures"]
    assert [200, 304] == kept["successes"]
    assert 10 == len(kept["all"])


def test_share_03_a_group_has_no_more_policies_than_a_request_has_charges() -> None:
    """What would make every request of a group fail is refused when the file is read."""
    names = [f"p{number}" for number in range(66)]
    policies = "".join(f'[policies.{name}]\nlimit = 60\nwindow = "1m"\n' for name in names)
    groups = f"[groups.writes]\npolicies = {names[:2]}\nsigned_in = {names[2:]}\nanonymous = {names[2:3]}\n"
    problem = "limits.toml:199: groups.writes: its requests have 66 policies; 64 at most"
    assert [problem] == problems_of(policies + groups)
    parse(policies + groups.replace(f"signed_in = {names[2:]}", f"signed_in = {names[4:]}"))


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    """One run of the service is enough to correct the whole file."""
    found = problems_of(
        "[policies.strict]\n"  # 1
        'windw = "1m"\n'  # 2
        "limit = 0\n"  # 3
        "\n"
        "[groups.writes]\n"  # 5
        "policies = [\n"  # 6
        '  "stict",\n'
        "]\n"
        "[plans.pro]\n"  # 9
        "strict = -1\n"  # 10
        "[polices.x]\n",  # 11
        required_groups=("writes", "reads"),
    )
    assert [problem.split(": ")[0] for problem in found] == [
        "limits.toml:1",
        "limits.toml:2",
        "limits.toml:3",
        "limits.toml:5",
        "limits.toml:6",
        "limits.toml:10",
        "limits.toml:11",
    ]
    assert [problem.split(": ")[1] for problem in found] == [
        "policies.strict.window",
        "policies.strict.windw",
        "policies.strict.limit",
        "groups.reads",
        "groups.writes.policies",
        "plans.pro.strict",
        "polices",
    ]


def test_a_mistake_in_a_policy_is_not_told_again_by_its_groups() -> None:
    """A policy that is wrong is still there."""
    assert len(problems_of(with_policy("limt = 3"))) == 1


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        (
            '[groups.writes]\npolicies = ["standrad"]',
            'there is no policy "standrad"; did you mean "standard"?',
        ),
        ('[groups.writes]\npolicies = "standard"', "it accepts a list of policy names"),
        ('[groups.writes]\npolicies = ["standard", "standard"]', '"standard" is there 2 times'),
        ('[groups.writes]\npolicies = ["standard"]\nsigned_in = ["standard"]', "in policies already"),
        ("[groups.writes]\n", "write policies = []"),
        ('[groups.writes]\npolicies = []\nanonymous = ["personal"]', "counts users"),
        ("[groups.writes]\npolicies = []\nsigned_up = []", 'did you mean "signed_in"?'),
        ("[groups.Writes]\npolicies = []", "groups.Writes: the name is not valid"),
        ("[groups]\nwrites = []", "write [groups.writes]"),
        ("[[groups]]\nwrites = []", "write [groups.NAME]"),
        ("[plans.pro]\nstandrd = 5", 'there is no such policy; did you mean "standard"?'),
        ("[plans.pro]\nby-address = 5", "this policy counts by address"),
        ("[plans]\npro = 5", "write [plans.pro]"),
    ],
)
def test_groups_and_plans_are_checked_against_the_policies(tables: str, complaint: str) -> None:
    """What refers to nothing, or can never apply, is a mistake and not a limit that is silently missing."""
    (problem,) = problems_of(
        '[policies.standard]\nlimit = 60\nwindow = "1m"\n'
        '[policies.personal]\nlimit = 60\nwindow = "1m"\nsubject = "user"\n'
        '[policies.by-address]\nlimit = 60\nwindow = "1m"\nsubject = "address"\n' + tables
    )
    assert complaint in problem


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[policies.a]\nlimit = \nwindow = "1m"', "limits.toml:2: it is not TOML: "),
        ("[policies.a]\nlimit = 1\nlimit = 2\n", "limits.toml:3: it is not TOML: "),
        ('[policies.a]\nwindow = """1m\n\n', "limits.toml:4: it is not TOML: "),
    ],
)
def test_broken_toml_is_told_with_its_line(text: str, place: str) -> None:
    """The parser's own words, with the line in the same place as everywhere."""
    (problem,) = problems_of(text)
    assert problem.startswith(place)


def test_a_file_with_windows_line_ends_has_the_same_lines() -> None:
    """CR LF is one line end."""
    (problem,) = problems_of(with_policy("shadow = 3").replace("\n", "\r\n"))
    assert problem.startswith("limits.toml:4: policies.standard.shadow")


def test_a_file_that_cannot_be_read_is_a_problem_with_its_name(tmp_path: Path) -> None:
    """Missing, or not text."""
    missing = tmp_path / "missing.toml"
    with pytest.raises(RateLimitsError, match=r"missing\.toml: it can't be read: No such file"):
        load_rate_limits(missing)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(RateLimitsError, match=r"binary\.toml: it is not UTF-8"):
        load_rate_limits(binary)

"""The rate limits file: read and checked as a whole; every problem is reported with its line.

It has the policies, the groups of routes under them, and what is excepted: networks, and single subjects for a time.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from .calendar import NOMINAL_MS, PERIODS, Calendar
from .checked_toml import NAME, Check, KeyPath, key_lines
from .limits import CHARGINGS, Group, Preset, RateLimits, RouteCost
from .overrides import ANY_POLICY, Override
from .policies import ALGORITHMS, FAILURE_MODES, MAX_CHARGES, MAX_IN_FLIGHT, MAX_WINDOW_MS, Policy
from .subjects import (
    MAX_NETWORKS,
    NAMED_KINDS,
    SUBJECT_KINDS,
    Listing,
    Network,
    Networks,
    SubjectKind,
    parse_networks,
)

_NETWORK_KEYS: Final[tuple[Listing, ...]] = ("allow", "block")
_OVERRIDE_KEYS: Final = ("limits", "exempt", "until")
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WINDOW: Final = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)")
_WINDOW_FORM: Final = (
    'a number and a unit, from "1ms" to "366d", as in "500ms", "10s", "15m", "1h" or "1d"; '
    'or "day", "week" or "month" of the calendar'
)
_SYNTAX_ERROR: Final = re.compile(
    r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)", re.DOTALL
)
_SECTIONS: Final = ("policies", "groups", "plans", "routes", "networks", "overrides")
_ALGORITHMS: Final = tuple(word for word in ALGORITHMS if word != "calendar")  # which the window says
_POLICY_KEYS: Final = ("limit", "window", "zone", "subject", "share", "algorithm", "on_failure", "shadow")
_GROUP_KEYS: Final = ("policies", "signed_in", "anonymous", "charge", "cost")
_ROUTE_KEYS: Final = ("policies", "cost", "charge")


def read_networks(check: Check, table: object) -> Networks:
    """Return the networks of [networks]; none of a list with a problem, which is noted."""
    if not isinstance(table, dict):
        check.problem(("networks",), "it is not a table; write [networks]")
        return Networks()
    check.keys(("networks",), table, _NETWORK_KEYS)
    try:
        return Networks(**{key: _network_list(check, key, table.get(key, [])) for key in _NETWORK_KEYS})
    except ValueError as error:
        check.problem(("networks",), str(error))
        return Networks()


def _network_list(check: Check, key: Listing, texts: object) -> frozenset[Network]:
    path = ("networks", key)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        check.refuse(path, texts, 'a list of networks, as in ["192.0.2.0/24", "2001:db8::/32"]')
    elif len(texts) > MAX_NETWORKS:
        check.problem(path, f"there are {len(texts)} networks; {MAX_NETWORKS} at most")
    else:
        try:
            return parse_networks(texts)
        except ValueError as error:
            check.problem(path, f"{error}; a network reads 192.0.2.0/24 or 2001:db8::/32")
    return frozenset()


def read_overrides(
    check: Check,
    tables: Mapping[str, Mapping[str, Any]],
    policies: Collection[str],
    parse_subject: Callable[[str], str],
) -> Iterator[Override]:
    """Yield the overrides of [overrides."SUBJECT"], and note what is wrong with them.

    Args:
        check: notes the problems.
        tables: by subject, as it is written.
        policies: the names that there are.
        parse_subject: returns a subject in the form in which it is counted, or raises ValueError.
    """
    for written, table in tables.items():
        path = ("overrides", written)
        check.keys(path, table, _OVERRIDE_KEYS)
        try:
            subject = parse_subject(written)
        except ValueError as error:
            check.problem(path, str(error))
            continue
        until = _until(check, (*path, "until"), table.get("until"))
        limits = _limits(check, (*path, "limits"), table.get("limits", {}), policies)
        exempt = _exempt(check, (*path, "exempt"), table.get("exempt", []), policies)
        if not (table.get("limits") or table.get("exempt")):
            check.problem(path, "it changes nothing; write limits = { POLICY = NUMBER } or exempt = true")
        for policy, limit in {**limits, **dict.fromkeys(exempt)}.items():
            yield Override(subject, policy, limit, until.timestamp(), "file")


def _until(check: Check, path: KeyPath, value: object) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    check.refuse(path, value, "a time with its zone, as in 2027-01-31T00:00:00Z")
    return _NEVER


def _limits(check: Check, path: KeyPath, table: object, policies: Collection[str]) -> dict[str, int]:
    if not isinstance(table, dict):
        check.refuse(path, table, "limits by policy, as in { api = 5000 }")
        return {}
    _known(check, path, table, policies)
    return {policy: check.units((*path, policy), limit) for policy, limit in table.items()}


def _exempt(check: Check, path: KeyPath, value: object, policies: Collection[str]) -> list[str]:
    if value is True:
        return [ANY_POLICY]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        check.refuse(path, value, 'true, or a list of policy names, as in ["api"]')
        return []
    _known(check, path, value, policies)
    return value


def _known(check: Check, path: KeyPath, names: Collection[str], policies: Collection[str]) -> None:
    for name in names:
        if name not in policies:
            check.problem(path, f'there is no policy "{name}"; {check.choice(name, policies)}')


class RateLimitsError(Exception):
    """A rate limits file is not valid.

    Args:
        problems: one sentence each, `file:line: key: what is wrong; what is accepted`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: Final = tuple(problems)
        super().__init__("\n".join(self.problems))


def load_rate_limits(
    path: Path,
    *,
    required_groups: Iterable[str] = (),
    routes: Mapping[str, str] | None = None,
    parse_subject: Callable[[str], str] = str,
) -> RateLimits:
    """Read a rate limits file.

    Args:
        path: the TOML file; config/ratelimits.toml explains its contents.
        required_groups: the groups that the routes name; each must be there. As a mapping, with the kinds of subjects
            that a body of the group's requests names.
        routes: the group of each route, by method and path; None: what the file says of routes is not used.
        parse_subject: returns a subject in the form in which it is counted, or raises ValueError with what is accepted.

    Raises:
        RateLimitsError: the file can't be read or is not valid; its text lists every problem.
    """
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise RateLimitsError([f"{path}: it can't be read: {error.strerror}"]) from error
    return parse_rate_limits(
        contents, file=str(path), required_groups=required_groups, routes=routes, parse_subject=parse_subject
    )


def parse_rate_limits(
    contents: bytes | str,
    *,
    file: str,
    required_groups: Iterable[str] = (),
    routes: Mapping[str, str] | None = None,
    parse_subject: Callable[[str], str] = str,
) -> RateLimits:
    """Return the rate limits in a file's contents; `file` is its name in the problems. See `load_rate_limits`."""
    try:
        text = contents if isinstance(contents, str) else contents.decode()
        # The parser's view of lines: TOML ends them with LF or CRLF.
        document = tomllib.loads(text)
        lines = key_lines(text.replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise RateLimitsError([f"{file}: it is not UTF-8: {error.reason}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise RateLimitsError([_syntax_problem(str(error), file, text)]) from error
    check = Check(file, lines)
    limits = _rate_limits(check, document, required_groups, routes, parse_subject)
    if limits is None:
        raise RateLimitsError(check.in_order())
    return limits


def _syntax_problem(error: str, file: str, text: str) -> str:
    found = _SYNTAX_ERROR.fullmatch(error)
    if found is None:
        return f"{file}: it is not TOML: {error}"
    line = found["line"] or str(text.count("\n") + 1)
    return f"{file}:{line}: it is not TOML: {found['what']}"


def _rate_limits(
    check: Check,
    document: Mapping[str, Any],
    required_groups: Iterable[str],
    routes: Mapping[str, str] | None,
    parse_subject: Callable[[str], str],
) -> RateLimits | None:
    check.keys((), document, _SECTIONS)
    policies = check.tables(document, "policies")
    presets = {name: _preset(check, name, table) for name, table in policies.items()}
    groups = {
        name: _group(check, name, table, presets) for name, table in check.tables(document, "groups").items()
    }
    for name in required_groups:
        if name not in groups:
            check.problem(("groups", name), f"the routes need this group; {check.choice(name, groups)}")
        elif isinstance(required_groups, Mapping):
            _check_names(check, name, groups[name], presets, required_groups[name])
    plans = {
        name: _plan(check, name, table, presets) for name, table in check.tables(document, "plans").items()
    }
    for name, group in groups.items():
        _check_cost(check, ("groups", name, "cost"), group.cost, group, presets, plans)
    costs: dict[str, RouteCost] = {}
    for route, table in check.tables(document, "routes", free_names=True).items():
        found = _route_cost(check, route, table, presets, routes)
        if found is not None and found.group in groups:
            costs[route] = found
            group = groups[found.group]
            own = replace(group, policies=(*group.policies, *found.policies))
            _check_cost(check, ("routes", route, "cost"), found.cost or group.cost, own, presets, plans)
    networks = read_networks(check, document.get("networks", {}))
    excepted = check.tables(document, "overrides", free_names=True)
    overrides = list(read_overrides(check, excepted, presets, parse_subject))
    return None if check.problems else RateLimits(presets, groups, plans, costs, networks, overrides)


def _route_cost(
    check: Check,
    route: str,
    table: Mapping[str, Any],
    presets: Mapping[str, Preset],
    routes: Mapping[str, str] | None,
) -> RouteCost | None:
    path = ("routes", route)
    check.keys(path, table, _ROUTE_KEYS)
    policies = _policy_names(check, (*path, "policies"), table.get("policies", []), presets)
    cost = check.units((*path, "cost"), table["cost"]) if "cost" in table else None
    charge = check.word((*path, "charge"), table["charge"], CHARGINGS, "all") if "charge" in table else None
    if routes is None:
        return None
    if route not in routes:
        close = get_close_matches(route, routes, n=1)
        guess = (
            f'did you mean "{close[0]}"?' if close else 'it reads METHOD /path, as in "POST /api/sessions"'
        )
        check.problem(path, f"there is no such limited route; {guess}")
        return None
    return RouteCost(routes[route], policies, cost, charge)


def _check_cost(
    check: Check,
    path: KeyPath,
    cost: int,
    group: Group,
    presets: Mapping[str, Preset],
    plans: Mapping[str, Mapping[str, int]],
) -> None:
    """Note a policy under which no request of this cost would ever be admitted."""
    for name in dict.fromkeys((*group.policies, *group.signed_in, *group.anonymous)):
        if name in presets and not (
            presets[name].policy.shadow or presets[name].policy.algorithm == "concurrency"
        ):
            limits = [presets[name].policy.limit, *(plan[name] for plan in plans.values() if name in plan)]
            if cost > min(limits):
                check.problem(
                    path, f'it is {cost}, above the limit of "{name}", {min(limits)}: nothing would ever pass'
                )


def _preset(check: Check, name: str, table: Mapping[str, Any]) -> Preset:
    path = ("policies", name)
    check.keys(path, table, _POLICY_KEYS)
    calendar = _calendar(check, path, table)
    algorithm = check.word((*path, "algorithm"), table.get("algorithm"), _ALGORITHMS, "sliding_window")
    limit = check.units((*path, "limit"), table.get("limit"))
    if algorithm == "concurrency" and limit > MAX_IN_FLIGHT:
        check.problem((*path, "limit"), f"it is {limit}; {MAX_IN_FLIGHT} at once at the most")
        limit = 1
    if calendar is not None and "algorithm" in table:
        check.problem((*path, "algorithm"), f'a window of a "{calendar.period}" has none')
    policy = Policy(
        # Whatever is wrong is noted, and stands as something valid, so that one mistake is one problem.
        name=name if NAME.fullmatch(name) else "invalid",
        limit=limit,
        window_ms=_window_ms(check, (*path, "window"), table.get("window"))
        if calendar is None
        else NOMINAL_MS[calendar.period],
        algorithm=algorithm if calendar is None else "calendar",
        calendar=calendar,
        on_failure=check.word((*path, "on_failure"), table.get("on_failure"), FAILURE_MODES, "open"),
        shadow=check.flag((*path, "shadow"), table.get("shadow")),
    )
    return Preset(
        policy,
        subject=check.word((*path, "subject"), table.get("subject"), SUBJECT_KINDS, "client"),
        share=check.flag((*path, "share"), table.get("share")),
    )


def _calendar(check: Check, path: KeyPath, table: Mapping[str, Any]) -> Calendar | None:
    """Return the calendar of a policy whose window is a day, a week or a month of one."""
    zone, period = (
        table.get("zone", "UTC"),
        next((word for word in PERIODS if word == table.get("window")), None),
    )
    if period is None:
        if "zone" in table:
            check.problem((*path, "zone"), f"only a window of {', '.join(PERIODS)} has one")
        return None
    try:
        return Calendar(period, zone)
    except (TypeError, ValueError):
        check.refuse((*path, "zone"), zone, 'a name of the time zone database, as in "Europe/Berlin"')
        return Calendar(period)


def _window_ms(check: Check, path: KeyPath, value: object) -> int:
    found = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    window_ms = int(found[1]) * _UNITS_MS[found[2]] if found else 0
    if 1 <= window_ms <= MAX_WINDOW_MS:
        return window_ms
    check.refuse(path, value, _WINDOW_FORM)
    return 1


def _group(check: Check, name: str, table: Mapping[str, Any], presets: Mapping[str, Preset]) -> Group:
    path = ("groups", name)
    check.keys(path, table, _GROUP_KEYS)
    if "policies" not in table:
        check.problem(path, "it has no policies; write policies = [] if it is to have no limit")
    policies = _policy_names(check, (*path, "policies"), table.get("policies", []), presets)
    signed_in = _policy_names(check, (*path, "signed_in"), table.get("signed_in", []), presets)
    anonymous = _policy_names(check, (*path, "anonymous"), table.get("anonymous", []), presets)
    for key, names in (("signed_in", signed_in), ("anonymous", anonymous)):
        for policy in names:
            if policy in policies:
                check.problem((*path, key), f'"{policy}" is in policies already, which count for everybody')
    most = len(policies) + max(len(signed_in), len(anonymous))
    if most > MAX_CHARGES:
        check.problem(path, f"its requests have {most} policies; {MAX_CHARGES} at most")
    for policy in anonymous:
        if policy in presets and presets[policy].subject == "user":
            check.problem((*path, "anonymous"), f'"{policy}" counts users, and these requests have none')
    charge = check.word((*path, "charge"), table.get("charge"), CHARGINGS, "all")
    cost = check.units((*path, "cost"), table.get("cost", 1))
    return Group(policies, signed_in, anonymous, charge, cost)


def _check_names(
    check: Check, name: str, group: Group, presets: Mapping[str, Preset], named: Collection[SubjectKind]
) -> None:
    """Note the policies that would count nothing, because the group's requests do not name their kind of subject."""
    for key, policies in (
        ("policies", group.policies), ("signed_in", group.signed_in), ("anonymous", group.anonymous)
    ):  # fmt: skip
        for policy in policies:
            kind = presets[policy].subject if policy in presets else "client"
            if kind in NAMED_KINDS and kind not in named:
                check.problem(
                    ("groups", name, key), f'"{policy}" counts by {kind}, and these requests name none'
                )


def _policy_names(
    check: Check, path: KeyPath, value: object, presets: Mapping[str, Preset]
) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        check.refuse(path, value, 'a list of policy names, as in ["standard"]')
        return ()
    for name in dict.fromkeys(value):
        if name not in presets:
            check.problem(path, f'there is no policy "{name}"; {check.choice(name, presets)}')
        elif value.count(name) > 1:
            check.problem(path, f'"{name}" is there {value.count(name)} times')
    return tuple(value)


def _plan(check: Check, name: str, table: Mapping[str, Any], presets: Mapping[str, Preset]) -> dict[str, int]:
    limits = {}
    for policy, value in table.items():
        path = ("plans", name, policy)
        if policy not in presets:
            check.problem(path, f"there is no such policy; {check.choice(policy, presets)}")
        elif presets[policy].subject not in {"client", "user"}:
            check.problem(path, f"this policy counts by {presets[policy].subject}, and a plan is a user's")
        limits[policy] = check.units(path, value)
    return limits

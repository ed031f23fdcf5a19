"""The rate limits file: read and checked as a whole; every problem is reported with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar

from .limits import CHARGINGS, Group, Preset, RateLimits, RouteCost
from .policies import ALGORITHMS, FAILURE_MODES, MAX_CHARGES, MAX_LIMIT, MAX_WINDOW_MS, Policy
from .subjects import NAMED_KINDS, SUBJECT_KINDS, SubjectKind

Word = TypeVar("Word", bound=str)


class Check:
    """Collects the problems of one file. Reading goes on after each, so that all are reported at once.

    Args:
        file: what the problems call the file.
        lines: where its keys stand (`key_lines`).
    """

    def __init__(self, file: str, lines: Mapping[KeyPath, int]) -> None:
        self._file = file
        self._lines = lines
        self.problems: list[tuple[int, str]] = []

    def in_order(self) -> list[str]:
        """Return the problems by line: `file:line: key: what is wrong; what is accepted`."""
        return [problem for _, problem in sorted(self.problems, key=lambda found: found[0])]

    def problem(self, path: KeyPath, what: str) -> None:
        """Note that something is wrong with a key."""
        line = line_of(self._lines, path)
        self.problems.append((line, f"{self._file}:{line}: {'.'.join(path)}: {what}"))

    def refuse(self, path: KeyPath, value: object, accepted: str) -> None:
        """Note that a value is not what its key accepts."""
        found = "it is missing" if value is None else f"{_as_written(value)} is not valid"
        self.problem(path, f"{found}; it accepts {accepted}")

    @staticmethod
    def choice(word: object, known: Iterable[str]) -> str:
        """Return the words there are, with a guess at the one that was meant."""
        words = list(known)
        close = get_close_matches(word, words, n=1) if isinstance(word, str) else []
        guess = f'did you mean "{close[0]}"? ' if close else ""
        return f"{guess}there {'are' if words else 'is nothing'} {', '.join(words)}".rstrip()

    def tables(
        self, document: Mapping[str, Any], section: str, *, free_names: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Return the tables of a section by name, without what is not a table; free names are anything."""
        found = document.get(section, {})
        if not isinstance(found, dict):
            self.problem((section,), f"it is not a table; write [{section}.NAME]")
            return {}
        for name, table in found.items():
            if not isinstance(table, dict):
                self.problem((section, name), f"it is not a table; write [{section}.{name}]")
            elif not (free_names or _NAME.fullmatch(name)):
                self.problem((section, name), f"the name is not valid; it accepts {_NAME_FORM}")
        return {name: table for name, table in found.items() if isinstance(table, dict)}

    def keys(self, path: KeyPath, table: Mapping[str, Any], known: Collection[str]) -> None:
        """Note the keys that are unknown."""
        for key in table:
            if key not in known:
                self.problem((*path, key), f"there is no such key; {self.choice(key, known)}")

    def word(self, path: KeyPath, value: object, known: Sequence[Word], default: Word) -> Word:
        """Return one of the known words; the default if the key is missing or wrong."""
        if value is None:
            return default
        for word in known:
            if word == value:
                return word
        self.problem(path, f"{_as_written(value)} is not valid; {self.choice(value, known)}")
        return default

    def flag(self, path: KeyPath, value: object) -> bool:
        """Return true or false; false if the key is missing or wrong."""
        if value is None or isinstance(value, bool):
            return bool(value)
        self.refuse(path, value, "true or false")
        return False


def _as_written(value: object) -> str:
    """A value roughly as TOML writes it, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


KeyPath = tuple[str, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, on which each table and key of a valid TOML text first appears.

    The standard library's parser reports no lines. So the text is cut into statements (a table header, or a key with
    its value, over as many lines as it takes), and the parser reads each on its own, quoted and dotted keys too.

    Args:
        text: what `tomllib.loads` accepts.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, statement, is_header in _statements(text):
        paths = [(*(() if is_header else table), *path) for path in _paths(tomllib.loads(statement))]
        if is_header:
            table = paths[-1]
        for path in paths:
            lines.setdefault(path, number)
    return lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """Return the line of a key or, if it is missing, of the nearest table around it; 1 if there is none."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _statements(text: str) -> Iterator[tuple[int, str, bool]]:
    pending: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending and line.lstrip().startswith("["):
            yield number, line, True
            continue
        pending.append(line)
        statement = "\n".join(pending)
        if _is_complete(statement):
            yield number - len(pending) + 1, statement, False
            pending.clear()


def _is_complete(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every table and key in a value, the outer ones first."""
    if isinstance(value, list) and value:
        yield from _paths(value[0], path)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _paths(inner, (*path, key))


_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WINDOW: Final = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)")
_WINDOW_FORM: Final = 'a number and a unit, from "1ms" to "366d", as in "500ms", "10s", "15m", "1h" or "1d"'
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_NAME_FORM: Final = "1 to 32 lower-case letters, digits and hyphens, a letter first"
_SYNTAX_ERROR: Final = re.compile(
    r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)", re.DOTALL
)

_SECTIONS: Final = ("policies", "groups", "plans", "routes")
_POLICY_KEYS: Final = ("limit", "window", "subject", "share", "algorithm", "on_failure", "shadow")
_GROUP_KEYS: Final = ("policies", "signed_in", "anonymous", "charge", "cost")
_ROUTE_KEYS: Final = ("cost", "charge")


class RateLimitsError(Exception):
    """A rate limits file is not valid.

    Args:
        problems: one sentence each, `file:line: key: what is wrong; what is accepted`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: Final = tuple(problems)
        super().__init__("\n".join(self.problems))


def load_rate_limits(
    path: Path, *, required_groups: Iterable[str] = (), routes: Mapping[str, str] | None = None
) -> RateLimits:
    """Read a rate limits file.

    Args:
        path: the TOML file; config/ratelimits.toml explains its contents.
        required_groups: the groups that the routes name; each must be there. As a mapping, with the kinds of subjects
            that a body of the group's requests names.
        routes: the group of each route, by method and path; None: what the file says of routes is not used.

    Raises:
        RateLimitsError: the file can't be read or is not valid; its text lists every problem.
    """
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise RateLimitsError([f"{path}: it can't be read: {error.strerror}"]) from error
    return parse_rate_limits(contents, file=str(path), required_groups=required_groups, routes=routes)


def parse_rate_limits(
    contents: bytes | str,
    *,
    file: str,
    required_groups: Iterable[str] = (),
    routes: Mapping[str, str] | None = None,
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
    limits = _rate_limits(check, document, required_groups, routes)
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
        found = _route_cost(check, route, table, routes)
        if found is not None and found.group in groups:
            costs[route] = found
            _check_cost(
                check, ("routes", route, "cost"), found.cost or 1, groups[found.group], presets, plans
            )
    return None if check.problems else RateLimits(presets, groups, plans, costs)


def _route_cost(
    check: Check, route: str, table: Mapping[str, Any], routes: Mapping[str, str] | None
) -> RouteCost | None:
    path = ("routes", route)
    check.keys(path, table, _ROUTE_KEYS)
    cost = _units(check, (*path, "cost"), table["cost"]) if "cost" in table else None
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
    return RouteCost(routes[route], cost, charge)


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
        if name in presets and not presets[name].policy.shadow:
            limits = [presets[name].policy.limit, *(plan[name] for plan in plans.values() if name in plan)]
            if cost > min(limits):
                check.problem(
                    path, f'it is {cost}, above the limit of "{name}", {min(limits)}: nothing would ever pass'
                )


def _preset(check: Check, name: str, table: Mapping[str, Any]) -> Preset:
    path = ("policies", name)
    check.keys(path, table, _POLICY_KEYS)
    policy = Policy(
        # Whatever is wrong is noted, and stands as something valid, so that one mistake is one problem.
        name=name if _NAME.fullmatch(name) else "invalid",
        limit=_units(check, (*path, "limit"), table.get("limit")),
        window_ms=_window_ms(check, (*path, "window"), table.get("window")),
        algorithm=check.word((*path, "algorithm"), table.get("algorithm"), ALGORITHMS, "sliding_window"),
        on_failure=check.word((*path, "on_failure"), table.get("on_failure"), FAILURE_MODES, "open"),
        shadow=check.flag((*path, "shadow"), table.get("shadow")),
    )
    return Preset(
        policy,
        subject=check.word((*path, "subject"), table.get("subject"), SUBJECT_KINDS, "client"),
        share=check.flag((*path, "share"), table.get("share")),
    )


def _units(check: Check, path: KeyPath, value: object) -> int:
    # True is an int, too.
    if type(value) is int and 1 <= value <= MAX_LIMIT:
        return value
    check.refuse(path, value, f"a whole number from 1 to {MAX_LIMIT}")
    return 1


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
    cost = _units(check, (*path, "cost"), table.get("cost", 1))
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
        limits[policy] = _units(check, path, value)
    return limits

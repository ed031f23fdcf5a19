"""What the rate limits file excepts from its policies: networks, and single subjects for a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from .checked_toml import Check, KeyPath
from .networks import MAX_NETWORKS, Listing, Network, Networks, parse_networks
from .overrides import ANY_POLICY, Override

_NETWORK_KEYS: Final[tuple[Listing, ...]] = ("allow", "block")
_OVERRIDE_KEYS: Final = ("limits", "exempt", "until")
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


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

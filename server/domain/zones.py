"""Time zones: the names of the IANA database, as they are written there, and nothing else."""

from __future__ import annotations

from zoneinfo import ZoneInfo, available_timezones

# `localtime` is whatever the machine is set to, `Factory` a machine that is not set to anything.
_NAMES = frozenset(available_timezones()) - {"localtime", "Factory", "posixrules"}


def find_zone(name: str) -> ZoneInfo | None:
    """The zone of a name such as Europe/Berlin; None where there is none."""
    return ZoneInfo(name) if name in _NAMES else None


def stored_zone(name: str) -> ZoneInfo:
    """The zone of a profile. UTC where this machine does not have it: another one, or an older release, stored it."""
    return find_zone(name) or ZoneInfo("UTC")

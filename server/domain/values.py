"""Values as the service takes and shows them: percentages, texts, time zones and accounts.

The rules for texts are the same wherever a text comes from: a form, a deck file, a folder's name. Time zones are those
of the IANA database, by their names there.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from server.clock import iso_timestamp


def percentage(part: int, whole: int) -> int:
    """A part of a whole in percent, rounded half up; 0 of nothing."""
    return 0 if whole == 0 else (200 * part + whole) // (2 * whole)


# Every control character but tab and line feed; and surrogates, which no UTF-8 can hold.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """A text in NFC without the white space around it, its Windows line breaks as line feeds."""
    text = text.replace("\r\n", "\n").strip()
    # Marks are sorted in a time that grows with the square of their number, so a text of nothing else stays as it is.
    return text if text.isascii() or _many_marks().search(text) else unicodedata.normalize("NFC", text)


@functools.cache
def _many_marks() -> re.Pattern[str]:
    """More combining marks in a row than any language has: 30 are Unicode's limit for streams (UAX 15)."""
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.combining(chr(code)))
    return re.compile(f"[{marks}]{{31}}")


def find_forbidden(text: str) -> str | None:
    """The first character that a text may not hold, such as U+001B; None in most texts."""
    found = _FORBIDDEN.search(text)
    return None if found is None else f"U+{ord(found[0]):04X}"


# `localtime` is whatever the machine is set to, `Factory` a machine that is not set to anything.
_NAMES = frozenset(available_timezones()) - {"localtime", "Factory", "posixrules"}


def find_zone(name: str) -> ZoneInfo | None:
    """The zone of a name such as Europe/Berlin; None where there is none."""
    return ZoneInfo(name) if name in _NAMES else None


def stored_zone(name: str) -> ZoneInfo:
    """The zone of a profile. UTC where this machine does not have it: another one, or an older release, stored it."""
    return find_zone(name) or ZoneInfo("UTC")


def describe_user(user: dict[str, Any]) -> dict[str, Any]:
    """An account in the form of the API."""
    return {
        "id": str(user["id"]),
        "email": user["email"],
        "name": user["name"],
        "role": user["role"],
        "createdAt": iso_timestamp(user["created_at"]),
    }

"""Timestamps: the one form in which answers, headers and log lines write an instant.

RFC 3339 in UTC with milliseconds: 2026-01-31T09:30:00.000Z. Fractions of a millisecond are cut off,
but for `exact_timestamp`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

_MILLISECONDS = tuple(f".{number:03d}Z" for number in range(1000))


def iso_timestamp(moment: datetime) -> str:
    """The timestamp of a moment, which has a time zone."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def exact_timestamp(moment: datetime) -> str:
    """The same with microseconds, for a moment that comes back to be compared with what the database holds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def optional_timestamp(moment: datetime | None) -> str | None:
    """The timestamp of a moment, where there may be none."""
    return None if moment is None else iso_timestamp(moment)


def instant_text(milliseconds: int) -> str:
    """The timestamp of an instant in milliseconds since 1970."""
    second, millisecond = divmod(milliseconds, 1000)
    return _second_text(second) + _MILLISECONDS[millisecond]


def now_text() -> str:
    """The timestamp of now."""
    return instant_text(int(time.time() * 1000))


@lru_cache(maxsize=1024)  # many requests of one second ask for the same one
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]

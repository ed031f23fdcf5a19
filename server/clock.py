"""Instants as the API, the headers and the log lines tell them: RFC 3339 in UTC, with milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

_MILLISECONDS = tuple(f".{number:03d}Z" for number in range(1000))


def instant_text(milliseconds: int) -> str:
    """An instant, given in milliseconds since 1970."""
    second, millisecond = divmod(milliseconds, 1000)
    return _second_text(second) + _MILLISECONDS[millisecond]


def now_text() -> str:
    """The present."""
    return instant_text(int(time.time() * 1000))


@lru_cache(maxsize=1024)  # those of one second are told again and again
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]

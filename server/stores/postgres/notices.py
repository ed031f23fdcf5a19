"""What PostgreSQL has to say beside its answers: NOTICE and WARNING, which the driver only collects."""

from __future__ import annotations

from typing import Any

import structlog

log = structlog.get_logger(__name__)

_SERIOUS = frozenset({"WARNING"})


def log_notices(raw: Any, *, query: str) -> None:
    """Log, and forget, what has come with the last statement.

    Args:
        raw: psycopg2's connection; it keeps fifty of them at most.
        query: the statement's name.
    """
    notices, raw.notices = raw.notices, []
    for text in notices:
        severity, _, message = text.strip().partition(":")
        say = log.warning if severity in _SERIOUS else log.info
        say("database.notice", query=query, severity=severity, detail=message.strip())

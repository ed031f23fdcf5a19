"""What the release phase of a platform prints: a log, each line of it an event, as the service's own.

A module of its own because it is imported before the command is known, and imports nothing until it is needed.
"""

from __future__ import annotations

import os
import sys


def is_read_by_people() -> bool:
    """Whether output is for people: on a terminal, or where LOG_FORMAT says so. Else it is part of a log."""
    form = _format()
    return form == "console" or (not form and sys.stdout.isatty())


def log_problems(*problems: str) -> None:
    """Log why a migration failed or was not begun, one event for each sentence."""
    import structlog  # noqa: PLC0415 - see above

    from server import __version__  # noqa: PLC0415
    from server.telemetry.logs.setup import configure_logging  # noqa: PLC0415

    configure_logging(
        level="error",
        format=_format() or "json",
        env=os.environ.get("MASTERY_ENV", "").strip() or "production",
        version=__version__,
        descriptor=sys.stderr.fileno(),
    )
    log = structlog.get_logger(__name__)
    for problem in problems:
        log.error("migrate.failed", detail=problem)


def _format() -> str:
    """LOG_FORMAT where it can be used; empty where it is not set or wrong."""
    from typing import get_args  # noqa: PLC0415

    from server.telemetry.logs.shapes import LogFormat  # noqa: PLC0415

    form = os.environ.get("LOG_FORMAT", "").strip().lower()
    return form if form in get_args(LogFormat) else ""

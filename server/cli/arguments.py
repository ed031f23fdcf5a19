"""What the command line needs before the command is known: what commands take, and how their problems are reported.

It imports nothing that takes long, for `--help`. The release phase of a platform prints a log, each line of it an
event, as the service's own.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import date
from pathlib import Path

_LONGEST_SECONDS = 365 * 24 * 3600
_MOST = 1_000_000_000


def seconds(text: str) -> int:
    """A time to wait, up to a year."""
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= _LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 to {_LONGEST_SECONDS}")
    return number


def count(text: str) -> int:
    """How many there are to be."""
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 to {_MOST}")
    return number


def day(text: str) -> date:
    """A date."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a date such as 2026-01-31") from None


def add_import_arguments(importing: argparse.ArgumentParser) -> None:
    """Those of `import`."""
    importing.add_argument(
        "path", type=Path, metavar="PATH", help="a .tsv, .csv, .txt, .json or .xlsx file, or a folder"
    )
    importing.add_argument("--dry-run", action="store_true", help="say what would change, and store nothing")
    importing.add_argument(
        "--class", dest="class_name", metavar="NAME", help="the class (name of the folder)"
    )
    importing.add_argument("--draft", action="store_true", help="do not publish what is new")
    importing.add_argument(
        "--charset", metavar="NAME", default="utf-8", help="of files without a byte order mark (utf-8)"
    )
    importing.add_argument(
        "--dialect", choices=("tab", "comma", "semicolon", "pipe"), help="what divides the columns (found)"
    )
    importing.add_argument(
        "--escapes", choices=("none",), help="none: \\n written out is text, also in a TSV without quotes"
    )
    importing.add_argument(
        "--header",
        choices=("none", "skip"),
        help="none: the first row of each file is a card; skip: it is passed over",
    )


def add_export_arguments(exporting: argparse.ArgumentParser) -> None:
    """Those of `export`."""
    exporting.add_argument("path", type=Path, metavar="PATH", help="a folder that is not there, or empty")
    exporting.add_argument(
        "--format", choices=("tsv", "csv", "json", "xlsx"), default="tsv", help="of the files (tsv)"
    )
    exporting.add_argument("--class", dest="class_name", metavar="NAME", help="only this class")


def add_limits_arguments(limits: argparse.ArgumentParser) -> None:
    """Those of `limits`."""
    actions = limits.add_subparsers(required=True, metavar="ACTION")
    for name, help_ in (
        ("show", "what the subject has used of each policy; looking consumes nothing"),
        ("reset", "forget what the subject has used, and end its block"),
        ("block", "refuse everything of the subject for a while"),
        ("override", "give the subject another limit under a policy for a while"),
        ("exempt", "do not limit the subject for a while; ends its block"),
        ("restore", "end what was overridden for the subject"),
    ):
        action = actions.add_parser(name, help=help_)
        action.add_argument("subject", metavar="SUBJECT", help="user:<id>, or ip:<address or prefix>")
        if name == "override":
            action.add_argument("--policy", required=True, help="the policy, as `limits show` names it")
            action.add_argument("--limit", type=count, required=True, help="units in the policy's window")
        if name == "exempt":
            action.add_argument("--policy", default="*", help="the policy (all of them)")
        if name in {"block", "override", "exempt"}:
            action.add_argument("--seconds", type=seconds, default=3600, help="for how long (3600)")
        action.set_defaults(action=name)


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

"""The command line as a person uses it: a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from server.__main__ import build_parser
from server.cli.limits import run_limits
from server.settings import ROOT, Settings
from tests.support.forked_commands import run_forked


def run_command(
    *arguments: str, database_url: str, stdin: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m server …` on a database to its end, with this text on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url} | variables,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_forked_command(
    *arguments: str, database_url: str, stdin: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The same in a process that need not start first: for tests of many commands."""
    return run_forked(arguments, os.environ | {"DATABASE_URL": database_url} | variables, stdin)


async def limits_command(settings: Settings, *words: str) -> str:
    """Run `limits …` in this process, beside a service that is in it, too; what it prints."""
    options = build_parser().parse_args(["limits", *words])
    return await asyncio.to_thread(run_limits, settings, options)

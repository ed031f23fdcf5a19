"""Tests that want a program which a machine need not have: skipped without it, and counted at the end of a run."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable

import pytest

_FOR_WANT = re.compile(r"for want of (\S+)")


def for_want_of(program: str, package: str | None = None) -> str:
    """Why a test is skipped: the program, and the package of Debian or Ubuntu that has it."""
    return f"for want of {program} (Debian, Ubuntu: apt-get install {package or program})"


def needs(program: str, package: str | None = None) -> pytest.MarkDecorator:
    """Skip a test where a program is not on the PATH."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=for_want_of(program, package))


def skipped_for_want(reports: Iterable[pytest.TestReport]) -> list[str]:
    """What was skipped for want of which program, a line for each of them."""
    reasons = [report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)]
    found = [match[1] for match in map(_FOR_WANT.search, reasons) if match]
    return [
        f"skipped for want of {program}: {count} {'test' if count == 1 else 'tests'}"
        for program, count in sorted(Counter(found).items())
    ]

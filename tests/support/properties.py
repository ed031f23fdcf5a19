"""Property tests: how many examples they try, and what they find as a line that can be pasted into a test."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hypothesis import settings

_FAILING = re.compile(r"Failing test case: \w+\(\n(.*?)\n[E ]*\)", re.DOTALL)
_BLOB = re.compile(r"@reproduce_failure\('[\d.]+', b'[^']*'\)")
_USUAL_EXAMPLES = 100  # Hypothesis' own number


def examples(count: int) -> int:
    """For a test with another number than the usual hundred: half as many in `make test`, five times in `test-long`."""
    return max(1, count * settings().max_examples // _USUAL_EXAMPLES)


def as_decorators(failure: str) -> Iterator[str]:
    """The smallest examples that a failure's text shows, and how Hypothesis repeats them, as a decorator a line."""
    for arguments in _FAILING.findall(failure):
        lines = (re.sub(r"^E?\s*|\s*#.*$", "", line) for line in arguments.splitlines())
        yield f"@example({' '.join(line for line in lines if line).rstrip(',')})"
    yield from _BLOB.findall(failure)

"""A bounded dictionary forgets the oldest entry."""

from __future__ import annotations

import pytest

from server import bounded_dict
from server.ratelimit import bounded


# There are two: the limiter imports nothing of the service, and what the log's lines use is below the limiter.
@pytest.mark.parametrize("kind", [bounded_dict.BoundedDict, bounded.BoundedDict])
def test_the_oldest_entry_makes_room(
    kind: type[bounded_dict.BoundedDict[str, int] | bounded.BoundedDict[str, int]],
) -> None:
    """One entry too many drops the one that was set longest ago; to set one again makes it the newest."""
    known = kind(2)
    known["a"], known["b"] = 1, 2
    known["a"] = 3
    known["c"] = 4
    assert {"a": 3, "c": 4} == known
    assert known.get("b") is None

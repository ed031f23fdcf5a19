"""A bounded dictionary forgets the oldest entry."""

from __future__ import annotations

from server.bounded_dict import BoundedDict


def test_the_oldest_entry_makes_room() -> None:
    """One entry too many drops the one that was set longest ago; to set one again makes it the newest."""
    known: BoundedDict[str, int] = BoundedDict(2)
    known["a"], known["b"] = 1, 2
    known["a"] = 3
    known["c"] = 4
    assert {"a": 3, "c": 4} == known
    assert known.get("b") is None


def test_what_is_looked_up_is_no_newer() -> None:
    """Reading an entry does not keep it: what is remembered has an age, however often it is asked for."""
    known: BoundedDict[str, int] = BoundedDict(2)
    known["a"], known["b"] = 1, 2
    assert 1 == known["a"]
    known["c"] = 3
    assert {"b": 2, "c": 3} == known

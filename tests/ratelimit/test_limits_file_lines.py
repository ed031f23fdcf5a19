"""On which line a key of a TOML text stands."""

from __future__ import annotations

from server.ratelimit.checked_toml import key_lines, line_of

TEXT = '''# [not.a.table]
title = "x" # [nor.this]

[ servers . "a.b" ]  # A comment.
"the key" = [
  "[servers.fake]",
  # limit = 3
]
nested.deep = 1
inline = { one = 1, two = { three = 3 } }
text = """
[servers.text]
limit = 4
"""
after = 'single = quotes'

[[list]]
item = 1
[[list]]
item = 2
other = 3
[servers]
last = true'''


def test_every_table_and_key_is_found_on_its_line() -> None:
    """Quoted and dotted keys, inline tables, arrays and text over several lines, comments in between."""
    assert key_lines(TEXT) == {
        ("title",): 2,
        ("servers",): 4,
        ("servers", "a.b"): 4,
        ("servers", "a.b", "the key"): 5,
        ("servers", "a.b", "nested"): 9,
        ("servers", "a.b", "nested", "deep"): 9,
        ("servers", "a.b", "inline"): 10,
        ("servers", "a.b", "inline", "one"): 10,
        ("servers", "a.b", "inline", "two"): 10,
        ("servers", "a.b", "inline", "two", "three"): 10,
        ("servers", "a.b", "text"): 11,
        ("servers", "a.b", "after"): 15,
        ("list",): 17,
        ("list", "item"): 18,
        ("list", "other"): 21,
        ("servers", "last"): 23,
    }


def test_what_is_missing_is_looked_for_where_it_should_be() -> None:
    """A missing key has the line of its table, and of the whole file where there is no table either."""
    lines = key_lines("\n[policies.strict]\nlimit = 1\n")
    assert line_of(lines, ("policies", "strict", "window")) == 2
    assert line_of(lines, ("groups", "reads")) == 1

"""A dictionary of bounded size, for what is remembered about clients, of which there may be any number.

The service has one like it (server/bounded_dict.py), of which the limiter can import nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedDict(OrderedDict[Key, Value]):
    """A dictionary that drops its oldest entry when it has too many. To set a key makes its entry the newest.

    Args:
        max_entries: how many it holds.
    """

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries = max_entries

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._max_entries:
            del self[next(iter(self))]

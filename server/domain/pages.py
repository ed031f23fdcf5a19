"""Answers that are put together once and given again as long as their parts stay the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

DEFAULT_MAX_PAGES = 5_000


class Page:
    """A finished answer. Whoever renders it may keep the rendering with it; nobody changes its content."""

    __slots__ = ("content", "rendering")

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.rendering: Any = None


class Pages:
    """Pages by key, each with the parts that it was made of, the least recently made forgotten first.

    Parts are compared by identity: the cache gives the same object for the same version of a value.
    """

    def __init__(self, max_pages: int = DEFAULT_MAX_PAGES) -> None:
        self._max_pages = max_pages
        self._known: OrderedDict[Hashable, tuple[object, object, Page]] = OrderedDict()

    def get(self, key: Hashable, first: object, second: object, make: Callable[[], dict[str, Any]]) -> Page:
        """The page of a key, made anew if one of its two parts is another than before."""
        known = self._known.get(key)
        if known is not None and known[0] is first and known[1] is second:
            return known[2]
        page = Page(make())
        self._known[key] = (first, second, page)
        self._known.move_to_end(key)
        if len(self._known) > self._max_pages:
            self._known.popitem(last=False)
        return page

"""Answers that are put together once and given again as long as their parts stay the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from server.stores.lookups import Seen

DEFAULT_MAX_PAGES = 5_000


class Page:
    """A finished answer. Whoever renders it may keep the rendering with it; nobody changes its content.

    Attributes:
        content: the answer.
        seen: the versions of the cached values that it was made of; None if it was not made of such.
        rendering: what the first to render it has kept.
    """

    __slots__ = ("content", "rendering", "seen")

    def __init__(self, content: dict[str, Any], seen: Seen | None) -> None:
        self.content = content
        self.seen = seen
        self.rendering: Any = None


class Pages:
    """The latest pages by key, the least recently made forgotten first."""

    def __init__(self, max_pages: int = DEFAULT_MAX_PAGES) -> None:
        self._max_pages = max_pages
        self._known: OrderedDict[Hashable, Page] = OrderedDict()

    def find(self, key: Hashable) -> Page | None:
        """The page that was made last for this key."""
        return self._known.get(key)

    def remember(self, key: Hashable, page: Page) -> None:
        """Keep a page in the place of the one before."""
        self._known[key] = page
        self._known.move_to_end(key)
        if len(self._known) > self._max_pages:
            self._known.popitem(last=False)

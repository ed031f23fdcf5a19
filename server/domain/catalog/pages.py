"""Answers that are put together once and given again as long as their parts stay the same."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from server.bounded_dict import BoundedDict
from server.stores.cache.cache import CacheKeys, Seen

DEFAULT_MAX_PAGES = 5_000

Name = TypeVar("Name", bound=Hashable)


class Page:
    """A finished answer. Its rendering may be kept with it; its content never changes.

    Attributes:
        content: the answer.
        seen: the versions of the cached values that it was made of; None if it was not made of such.
        rendering: what the first to render it has kept.
    """

    __slots__ = ("_parts", "content", "rendering", "seen")

    def __init__(self, content: dict[str, Any], seen: Seen | None, parts: tuple[object, ...]) -> None:
        self.content = content
        self.seen = seen
        self.rendering: Any = None
        self._parts = parts

    def is_made_of(self, *parts: object) -> bool:
        """Whether it was made of these very objects: the cache gives the same one for the same version of a value."""
        return all(map(operator.is_, self._parts, parts))


class Place:
    """Where the latest page of one kind and reader is, with the keys of what it is made of."""

    __slots__ = ("keys", "page")

    def __init__(self, keys: CacheKeys) -> None:
        self.keys = keys
        self.page: Page | None = None


class Pages(Generic[Name]):
    """The places by name, the oldest forgotten first.

    Args:
        keys_of: the cache keys that the page of a name is made of.
        max_pages: how many places are known.
    """

    def __init__(self, keys_of: Callable[[Name], CacheKeys], max_pages: int = DEFAULT_MAX_PAGES) -> None:
        self._keys_of = keys_of
        self._places: BoundedDict[Name, Place] = BoundedDict(max_pages)

    def place(self, name: Name) -> Place:
        """The place of a name."""
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = Place(self._keys_of(name))
        return place

"""A metric's children by their labels, found by one look into a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client.metrics import MetricWrapperBase


class Children:
    """What `metric.labels` does, with a memory: the same few children are asked for with every request."""

    __slots__ = ("_find", "_known", "_wrap")

    def __init__(self, metric: MetricWrapperBase, wrap: Callable[[Any], Any] | None = None) -> None:
        """Args: wrap: what to remember of a child instead of itself, such as its tally."""
        self._find = metric.labels
        self._wrap = wrap
        self._known: dict[tuple[object, ...], Any] = {}

    def __call__(self, *values: object, **labels: object) -> Any:
        """The child with these labels, by position or by name."""
        key = values or tuple(labels.values())
        child = self._known.get(key)
        if child is None:
            child = self._find(*values, **labels)
            if self._wrap is not None:
                child = self._wrap(child)
            self._known[key] = child
        return child

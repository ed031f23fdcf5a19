"""A metric as it is exposed: families of series, each with a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_SUM_FIRST = -math.inf  # a histogram's sum stands before its buckets


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One line of the exposition without its value; made once, equal only to itself.

    Attributes:
        name: the sample's, such as `http_responses_total`.
        labels: by name.
        text: name and labels as the exposition has them, escaped.
        upper_bound: of a histogram's bucket.
        count: the series that counts a histogram's observations; None for what is no part of one.
    """

    name: str
    labels: Mapping[str, str]
    text: str
    upper_bound: float = _SUM_FIRST
    count: Series | None = field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, labels: Mapping[str, str], *, count: Series | None = None) -> Series:
        """The series of a sample."""
        pairs = ",".join(f'{label}="{_escape(value)}"' for label, value in sorted(labels.items()))
        text = f"{name}{{{pairs}}}" if pairs else name
        bound = float(labels["le"]) if count is not None and "le" in labels else _SUM_FIRST
        return cls(name, labels, text, bound, count)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name (a counter's without `_total`), type and description, and the values of its series."""

    name: str
    kind: str
    documentation: str
    samples: list[tuple[Series, float]]

    @classmethod
    def of_one(cls, name: str, kind: str, documentation: str, value: float) -> Family:
        """A metric without labels."""
        return cls(name, kind, documentation, [(Series.of(_sample_name(name, kind), {}), value)])

    @property
    def exposed_name(self) -> str:
        """Its name as its samples have it, in the older format and in PromQL."""
        return _sample_name(self.name, self.kind)


def cumulative(samples: Iterable[tuple[Series, float]]) -> list[tuple[Series, float]]:
    """A histogram's series as they are exposed, from the number of observations in each bucket alone.

    Those of one label set stand together: the sum, the buckets with growing bounds, the count.
    """
    groups: dict[Series, list[tuple[float, Series, float]]] = {}
    for series, value in samples:
        if series.count is not None:
            groups.setdefault(series.count, []).append((series.upper_bound, series, value))
    exposed = []
    for count, rows in groups.items():
        rows.sort(key=_bound)
        seen = 0.0
        for bound, series, value in rows:
            if bound == _SUM_FIRST:
                exposed.append((series, value))
            else:
                seen += value
                exposed.append((series, seen))
        exposed.append((count, seen))
    return exposed


def _bound(row: tuple[float, Series, float]) -> float:
    return row[0]


def _sample_name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

"""The results of a run as one JSON document, and which targets they meet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.rounds import Round, Row
from server.settings import ROOT

RESULTS = ROOT / "bench" / "results" / "service.json"
CHART = RESULTS.with_suffix(".svg")
INSTRUCTIONS = RESULTS.with_name("instructions.json")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """What the project wants of a figure.

    Attributes:
        name: in words.
        path: where the figure is in the document, keys separated by slashes; two with " / " between: their quotient.
        bound: what it is compared with.
        at_least: whether more is better; else less is.
    """

    name: str
    path: str
    bound: float
    at_least: bool = True


_ROWS = "instructions/rows"
_BARE = f"{_ROWS}/bare aiohttp, the same bytes"
GOALS = (
    Goal("throughput, of bare aiohttp", "rows/service/per_second / rows/bare/per_second", 0.65),
    Goal("throughput, of Fastify", "rows/service/per_second / rows/fastify/per_second", 1.35),
    Goal(
        "CPU for a request, of Fastify's", "rows/service/cpu_us / rows/fastify/cpu_us", 0.75, at_least=False
    ),
    Goal("p99, of Fastify's", "rows/service/p99_ms / rows/fastify/p99_ms", 0.5, at_least=False),
    Goal("throughput, of FastAPI", "rows/service/per_second / rows/fastapi/per_second", 12.0),
    Goal("p99, of FastAPI's", "rows/service/p99_ms / rows/fastapi/p99_ms", 1.0, at_least=False),
    Goal("refused requests (429), of bare", "rows/refused/per_second / rows/bare/per_second", 0.85),
    Goal("unchanged answers (304), of the 200s", "rows/unchanged/per_second / rows/service/per_second", 1.0),
    Goal("instructions of a 200, of bare", f"{_ROWS}/200: all of it / {_BARE}", 2.0, at_least=False),
    Goal("instructions of a 304, of a 200's", f"{_ROWS}/304 / {_ROWS}/200: all of it", 1.0, at_least=False),
    Goal("instructions of a refusal from memory, of bare", f"{_ROWS}/429 / {_BARE}", 1.35, at_least=False),
    Goal("round trips to Redis a request", "redis/service/round_trips", 1.05, at_least=False),
    Goal("two workers, of one", "workers/speed_up", 1.8),
    Goal("start to first answer, s", "start/seconds", 1.2, at_least=False),
    Goal("memory of a worker, MB", "rows/service/memory_mb", 100.0, at_least=False),
    Goal("p99 with 1,024 connections, ms", "crowd/p99_ms", 250.0, at_least=False),
    Goal("memory of a worker after them, MB", "crowd/memory_mb", 105.0, at_least=False),
    Goal("memory after the soak, of that when warm", "soak/end_mb / soak/warm_mb", 1.05, at_least=False),
    Goal("event loop lag p99, ms", "loopLagP99Ms", 10.0, at_least=False),
)


@dataclass(frozen=True, slots=True)
class Check:
    """A goal beside its figure; `figure` is None where it was not measured."""

    goal: Goal
    figure: float | None

    @property
    def verdict(self) -> str:
        """Met, not met, or not measured."""
        if self.figure is None:
            return "not measured"
        met = self.figure >= self.goal.bound if self.goal.at_least else self.figure <= self.goal.bound
        return "met" if met else "not met"

    @property
    def line(self) -> list[str]:
        """The cells of its line in a table."""
        sign = "≥" if self.goal.at_least else "≤"
        figure = "" if self.figure is None else f"{self.figure:.2f}"
        return [self.goal.name, f"{sign} {self.goal.bound:g}", figure, self.verdict]


def check_goals(document: Mapping[str, Any]) -> list[Check]:
    """Every goal with what the document says about it."""
    return [Check(goal, _figure(document, goal.path)) for goal in GOALS]


def rows_as_json(rows: Mapping[str, Row]) -> Document:
    """The rows of a table for the document."""
    return {name: row.as_json() for name, row in rows.items()}


def rows_from_json(document: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of a document for a table."""
    fields = Round.__dataclass_fields__
    return {
        name: Row(
            name,
            Round(**{field: found[field] for field in fields}),
            found["slowest"],
            found["fastest"],
            found["rounds"],
        )
        for name, found in document["rows"].items()
    }


def write_document(document: Mapping[str, Any], file: Path = RESULTS) -> None:
    """Write it where the report reads it; figures are rounded to what they are worth."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_rounded(document), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_document(file: Path = RESULTS) -> Document:
    """The latest results."""
    document: Document = json.loads(file.read_text(encoding="utf-8"))
    return document


def _figure(document: Mapping[str, Any], path: str) -> float | None:
    values = []
    for part in path.split(" / "):
        value: Any = document
        for key in part.split("/"):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            return None
        values.append(float(value))
    return values[0] if len(values) == 1 else values[0] / values[1]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if abs(value) < 10 else round(value, 1)
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return value

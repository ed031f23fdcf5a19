"""Rows of figures as a table for a terminal, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.harness.rounds import Row

HEADINGS = ("", "requests/s", "of bare", "p50 ms", "p99 ms", "CPU µs/request", "MB/worker", "rounds")


def cells(rows: Mapping[str, Row]) -> list[list[str]]:
    """The table's cells: a line for each row, the fastest first; "of bare" is empty where bare was not measured."""
    yardstick = rows.get("bare")
    lines = []
    for row in sorted(rows.values(), key=lambda row: -row.median.per_second):
        one = row.median
        ratio = f"{one.per_second / yardstick.median.per_second:.2f}" if yardstick else ""
        lines.append(
            [
                row.name,
                f"{one.per_second:,.0f}",
                ratio,
                f"{one.p50_ms:.2f}",
                f"{one.p99_ms:.2f}",
                f"{one.cpu_us:.0f}",
                f"{one.memory_mb:.0f}",
                f"{row.slowest:,.0f} to {row.fastest:,.0f}",
            ]
        )
    return lines


def sweep_headings(what: str) -> tuple[str, ...]:
    """The headings of a table of growth: of `connections`, for example."""
    return (what, "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "MB/worker")


def sweep_lines(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of a table of growth."""
    return [
        [
            str(one["count"]),
            f"{one['per_second']:,.0f}",
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            f"{one['cpu_us']:.0f}",
            f"{one['memory_mb']:.0f}",
        ]
        for one in found
    ]


def as_text(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in [headings, *lines]) for column in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [headings, *lines]
    )


def as_markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same as a table of Markdown."""
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [headings, ruler, *lines])

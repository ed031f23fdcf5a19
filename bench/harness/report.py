"""Fills the tables of docs/performance.md from the latest results, between its markers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from bench import profile, rating, starts, workers
from bench.harness.chart import Bar, Panel, bar_chart
from bench.harness.deployment import UTILISATION, Deployment, dynos_at_the_limit
from bench.harness.results import check_goals, rows_from_json
from bench.harness.table import HEADINGS, as_markdown, cells, sweep_headings, sweep_lines
from server.settings import ROOT

PAGE = ROOT / "docs" / "performance.md"
TITLES = {
    "service": "Mastery",
    "refused": "Mastery, refused (429)",
    "unchanged": "Mastery, unchanged (304)",
    "bare": "bare aiohttp",
    "fastify": "Fastify",
    "fastapi": "FastAPI",
    "go": "Go",
}
_SECTION = re.compile(r"(<!-- bench:(?P<name>[a-z]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
_DYNOS = (1, 2, 4, 8, 16, 32, 64)
_MASTERS = (1, 2, 3, 6)
_UNDISTURBED = 0.9
_COLUMNS = 116
_FILES = (
    "![Requests a second and p99 latency](../bench/results/service.svg)\n\n"
    "All figures: [bench/results/service.json](../bench/results/service.json)."
)
_NOTHING = "Not measured yet: `make bench` does."

Document = Mapping[str, Any]


def fill_page(page: str, document: Document) -> str:
    """The page with every section between markers replaced by what the document says.

    Raises:
        KeyError: a marker names a section that there is not.
    """
    return _SECTION.sub(lambda found: f"{found[1]}{SECTIONS[found['name']](document)}\n{found[3]}", page)


def chart(document: Document) -> str:
    """The comparison as an SVG document."""
    rows = {name: row.median for name, row in rows_from_json(document).items()}
    names = [name for name in TITLES if name in rows]
    names.sort(key=lambda name: -rows[name].per_second)

    def panel(title: str, column: str, unit: str, decimals: int) -> Panel:
        values = {name: getattr(rows[name], column) for name in names}
        return Panel(
            title,
            [
                Bar(
                    TITLES[name],
                    value,
                    f"{value:,.{decimals}f}{unit}",
                    ours=TITLES[name].startswith("Mastery"),
                )
                for name, value in values.items()
            ],
        )

    return bar_chart(
        [
            panel("Requests a second, one worker on one core", "per_second", "", 0),
            panel("p99 latency, milliseconds", "p99_ms", " ms", 1),
        ],
        note=conditions(document),
    )


def conditions(document: Document) -> str:
    """Machine, date and load in one line."""
    machine, how = document["machine"], document["conditions"]
    shares = [row["core_share"] for row in document["rows"].values()]
    disturbed = (
        f"; disturbed: {min(shares):.0%} of a core was to be had" if min(shares) < _UNDISTURBED else ""
    )
    return (
        f"{document['date']}, {machine['processor']}, {machine['cores']} cores, Python {machine['python']}; "
        f"{how['generator']}, {how['connections']} connections, {how['readers']} readers, "
        f"medians of {how['rounds']} rounds of {how['secondsPerRound']:g} s{disturbed}"
    )


def _folded(text: str) -> str:
    """As the prose of the page is."""
    return textwrap.fill(text, _COLUMNS, break_long_words=False, break_on_hyphens=False)


def _comparison(document: Document) -> str:
    lines = [[TITLES.get(line[0], line[0]), *line[1:]] for line in cells(rows_from_json(document))]
    missing = "".join(
        f"\n\n{_folded(f'{TITLES[name]} is missing: {why}.')}"
        for name, why in document.get("missing", {}).items()
    )
    return f"{_FILES}\n\n{_folded(conditions(document))}\n\n{as_markdown(HEADINGS, lines)}{missing}"


def _goals(document: Document) -> str:
    return as_markdown(("", "wanted", "measured", ""), [check.line for check in check_goals(document)])


def _chain(document: Document) -> str:
    lines = [[one["name"], f"{one['added_us']:.0f}", f"{one['cpu_us']:.0f}"] for one in document["chain"]]
    return as_markdown(("a request that goes as far as …", "adds CPU µs", "in all"), lines)


def _redis(document: Document) -> str:
    lines = []
    for name, use in document["redis"].items():
        commands = ", ".join(
            f"{count:.0f} {command.upper()}" for command, count in sorted(use["commands"].items())
        )
        lines.append(
            [
                TITLES[name],
                f"{use['round_trips']:.2f}",
                f"{use['cpu_us']:.0f}",
                f"{use['script_us']:.1f}",
                commands,
            ]
        )
    headings = ("", "round trips", "Redis CPU µs/request", "µs/script", "commands, those of scripts included")
    return as_markdown(headings, lines)


def _instructions(document: Document) -> str:
    found = document["instructions"]
    rows = found["rows"]
    yardstick = next(iter(rows.values()))
    lines = [[name, f"{count:,}", f"{count / yardstick:.2f}"] for name, count in rows.items()]
    table = as_markdown(("", "instructions/request", "of bare"), lines)
    return f"{found['date']}, Python {found['machine']['python']}\n\n{table}"


def _profile(document: Document) -> str:
    rooms = document["instructions"]["rooms"]
    return as_markdown(("", *rooms), profile.room_lines(rooms))


def _sweep(what: str) -> Callable[[Document], str]:
    def section(document: Document) -> str:
        return as_markdown(sweep_headings(what), sweep_lines(document[what]))

    return section


def _start(document: Document) -> str:
    return as_markdown(starts.HEADINGS, starts.start_lines(document["start"]))


def _workers(document: Document) -> str:
    found = document["workers"]
    table = f"{as_markdown(workers.HEADINGS, workers.worker_lines(found))}\n\n" if "rows" in found else ""
    return f"{table}{_folded(workers.verdict(found))}"


def _keys(document: Document) -> str:
    lines = [
        [f"{one['clients']:,}", f"{one['bytes_per_client']:,.0f}", f"{one['script_us']:.1f}"]
        for one in document["keys"]
    ]
    return as_markdown(("clients", "bytes each in Redis", "Redis µs/decision"), lines)


def _deployment(document: Document) -> str:
    worker_us = document["rows"]["service"]["cpu_us"]
    redis_us = document["redis"]["service"]["cpu_us"]
    dynos = [
        [
            str(one.dynos),
            f"{one.workers_carry:,.0f}",
            f"{one.redis_carries:,.0f}",
            f"{one.carries:,.0f}",
            one.limit,
        ]
        for one in (Deployment(count, 1, worker_us, redis_us) for count in _DYNOS)
    ]
    masters = [
        [str(count), f"{Deployment(1, count, worker_us, redis_us).redis_carries:,.0f}",
         f"{dynos_at_the_limit(worker_us, redis_us, count):.0f}"]
        for count in _MASTERS
    ]  # fmt: skip
    return (
        f"With every core at most {UTILISATION:.0%} busy, {worker_us:.0f} µs of a worker's core and {redis_us:.0f} µs "
        f"of Redis's a request, requests a second:\n\n"
        f"{as_markdown(('dynos', 'they carry', 'one Redis carries', 'together', 'limited by'), dynos)}\n\n"
        f"{as_markdown(('Redis masters', 'they carry', 'dynos that keep them busy'), masters)}"
    )


def _or_nothing(section: Callable[[Document], str]) -> Callable[[Document], str]:
    def guarded(document: Document) -> str:
        try:
            return section(document)
        except KeyError:
            return _NOTHING

    return guarded


SECTIONS: Mapping[str, Callable[[Document], str]] = {
    "comparison": _comparison,
    "goals": _goals,
    "chain": _or_nothing(_chain),
    "instructions": _or_nothing(_instructions),
    "profile": _or_nothing(_profile),
    "redis": _or_nothing(_redis),
    "connections": _or_nothing(_sweep("connections")),
    "policies": _or_nothing(_sweep("policies")),
    "keys": _or_nothing(_keys),
    "start": _or_nothing(_start),
    "workers": _or_nothing(_workers),
    "ratings": _or_nothing(rating.section),
    "deployment": _or_nothing(_deployment),
}

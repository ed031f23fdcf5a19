"""On which line of a TOML text each key stands, which the standard library's parser does not tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

KeyPath = tuple[str, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, on which each table and key of a valid TOML text first appears.

    The text is cut into statements (a table header, or a key with its value, over as many lines as it takes),
    and each is read by the real parser on its own, so that quoted and dotted keys come out as it sees them.

    Args:
        text: what `tomllib.loads` accepts.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, statement, is_header in _statements(text):
        paths = [(*(() if is_header else table), *path) for path in _paths(tomllib.loads(statement))]
        if is_header:
            table = paths[-1]
        for path in paths:
            lines.setdefault(path, number)
    return lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of a key or, for one that is missing, of the nearest table around it; 1 where nothing is."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _statements(text: str) -> Iterator[tuple[int, str, bool]]:
    pending: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending and line.lstrip().startswith("["):
            yield number, line, True
            continue
        pending.append(line)
        statement = "\n".join(pending)
        if _is_complete(statement):
            yield number - len(pending) + 1, statement, False
            pending.clear()


def _is_complete(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every table and key in a value, the outer ones first."""
    if isinstance(value, list) and value:
        yield from _paths(value[0], path)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _paths(inner, (*path, key))

"""A TOML file that is checked as a whole: every problem is noted with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from .policies import MAX_LIMIT

Word = TypeVar("Word", bound=str)
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_NAME_FORM: Final = "1 to 32 lower-case letters, digits and hyphens, a letter first"


class Check:
    """Collects the problems of one file. Reading goes on after each, so that all are reported at once.

    Args:
        file: what the problems call the file.
        lines: where its keys stand (`key_lines`).
    """

    def __init__(self, file: str, lines: Mapping[KeyPath, int]) -> None:
        self._file = file
        self._lines = lines
        self.problems: list[tuple[int, str]] = []

    def in_order(self) -> list[str]:
        """Return the problems by line: `file:line: key: what is wrong; what is accepted`."""
        return [problem for _, problem in sorted(self.problems, key=lambda found: found[0])]

    def problem(self, path: KeyPath, what: str) -> None:
        """Note that something is wrong with a key."""
        line = line_of(self._lines, path)
        self.problems.append((line, f"{self._file}:{line}: {'.'.join(path)}: {what}"))

    def refuse(self, path: KeyPath, value: object, accepted: str) -> None:
        """Note that a value is not what its key accepts."""
        found = "it is missing" if value is None else f"{_as_written(value)} is not valid"
        self.problem(path, f"{found}; it accepts {accepted}")

    @staticmethod
    def choice(word: object, known: Iterable[str]) -> str:
        """Return the words there are, with a guess at the one that was meant."""
        words = list(known)
        close = get_close_matches(word, words, n=1) if isinstance(word, str) else []
        guess = f'did you mean "{close[0]}"? ' if close else ""
        return f"{guess}there {'are' if words else 'is nothing'} {', '.join(words)}".rstrip()

    def tables(
        self, document: Mapping[str, Any], section: str, *, free_names: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Return the tables of a section by name, without what is not a table; free names are anything."""
        found = document.get(section, {})
        if not isinstance(found, dict):
            self.problem((section,), f"it is not a table; write [{section}.NAME]")
            return {}
        for name, table in found.items():
            if not isinstance(table, dict):
                self.problem((section, name), f"it is not a table; write [{section}.{name}]")
            elif not (free_names or NAME.fullmatch(name)):
                self.problem((section, name), f"the name is not valid; it accepts {_NAME_FORM}")
        return {name: table for name, table in found.items() if isinstance(table, dict)}

    def keys(self, path: KeyPath, table: Mapping[str, Any], known: Collection[str]) -> None:
        """Note the keys that are unknown."""
        for key in table:
            if key not in known:
                self.problem((*path, key), f"there is no such key; {self.choice(key, known)}")

    def word(self, path: KeyPath, value: object, known: Sequence[Word], default: Word) -> Word:
        """Return one of the known words; the default if the key is missing or wrong."""
        if value is None:
            return default
        for word in known:
            if word == value:
                return word
        self.problem(path, f"{_as_written(value)} is not valid; {self.choice(value, known)}")
        return default

    def flag(self, path: KeyPath, value: object) -> bool:
        """Return true or false; false if the key is missing or wrong."""
        if value is None or isinstance(value, bool):
            return bool(value)
        self.refuse(path, value, "true or false")
        return False

    def units(self, path: KeyPath, value: object) -> int:
        """Return a number of units; 1 if it is missing or wrong."""
        # True is an int, too.
        if type(value) is int and 1 <= value <= MAX_LIMIT:
            return value
        self.refuse(path, value, f"a whole number from 1 to {MAX_LIMIT}")
        return 1


def _as_written(value: object) -> str:
    """A value roughly as TOML writes it, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


KeyPath = tuple[str, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, on which each table and key of a valid TOML text first appears.

    The standard library's parser reports no lines. So the text is cut into statements (a table header, or a key with
    its value, over as many lines as it takes), and the parser reads each on its own, quoted and dotted keys too.

    Args:
        text: what `tomllib.loads` accepts.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, content, is_header in _statements(text):
        paths = [(*(() if is_header else table), *path) for path in _paths(content)]
        if is_header:
            table = paths[-1]
        for path in paths:
            lines.setdefault(path, number)
    return lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """Return the line of a key or, if it is missing, of the nearest table around it; 1 if there is none."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """The first line of each statement, what it says on its own, and whether it is a table header."""
    pending: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        start = line.lstrip()[:1]
        if not pending and start == "[":
            yield number, tomllib.loads(line), True
            continue
        if not pending and start in {"", "#"}:
            continue
        pending.append(line)
        content = _content("\n".join(pending))
        if content is not None:
            yield number - len(pending) + 1, content, False
            pending.clear()


def _content(statement: str) -> dict[str, Any] | None:
    """What a statement says; None while lines of it are missing."""
    try:
        return tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return None


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every table and key in a value, the outer ones first."""
    if isinstance(value, list) and value:
        yield from _paths(value[0], path)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _paths(inner, (*path, key))

"""Reading a configuration's values and noting, with its line, everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from re import Pattern
from typing import Any, TypeVar

from server.ratelimit.config_lines import KeyPath, line_of

Word = TypeVar("Word", bound=str)


class Check:
    """Collects the problems of one file; reading goes on after each, so that all are told at once.

    Args:
        file: what the problems call the file.
        lines: where its keys stand (`key_lines`).
    """

    def __init__(self, file: str, lines: Mapping[KeyPath, int]) -> None:
        self._file = file
        self._lines = lines
        self.problems: list[tuple[int, str]] = []

    def in_order(self) -> list[str]:
        """The problems, by line: `file:line: key: what is wrong; what is accepted`."""
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
        """What to choose from, with a guess at what was meant."""
        words = list(known)
        close = get_close_matches(word, words, n=1) if isinstance(word, str) else []
        guess = f'did you mean "{close[0]}"? ' if close else ""
        return f"{guess}there {'are' if words else 'is nothing'} {', '.join(words)}".rstrip()

    def tables(
        self, document: Mapping[str, Any], section: str, *, name_form: Pattern[str], accepted: str
    ) -> dict[str, dict[str, Any]]:
        """The tables of a section by name, without what is no table."""
        found = document.get(section, {})
        if not isinstance(found, dict):
            self.problem((section,), f"it is not a table; write [{section}.NAME]")
            return {}
        for name, table in found.items():
            if not isinstance(table, dict):
                self.problem((section, name), f"it is not a table; write [{section}.{name}]")
            elif not name_form.fullmatch(name):
                self.problem((section, name), f"the name is not valid; it accepts {accepted}")
        return {name: table for name, table in found.items() if isinstance(table, dict)}

    def keys(self, path: KeyPath, table: Mapping[str, Any], known: Collection[str]) -> None:
        """Note the keys that are not known."""
        for key in table:
            if key not in known:
                self.problem((*path, key), f"there is no such key; {self.choice(key, known)}")

    def word(self, path: KeyPath, value: object, known: Sequence[Word], default: Word) -> Word:
        """One of the known words; the default where the key is missing or wrong."""
        if value is None:
            return default
        for word in known:
            if word == value:
                return word
        self.problem(path, f"{_as_written(value)} is not valid; {self.choice(value, known)}")
        return default

    def flag(self, path: KeyPath, value: object) -> bool:
        """True or false; false where the key is missing or wrong."""
        if value is None or isinstance(value, bool):
            return bool(value)
        self.refuse(path, value, "true or false")
        return False


def _as_written(value: object) -> str:
    """A value roughly as TOML writes it, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

r"""Decks as files: tab-separated, CSV or JSON bytes in, cards out, or every problem with the row it is in.

The columns are question, answer, category, explanation. A first row that names them says which are there; without
one, rows have two to four columns in that order. Rows count from 1 as lines of the file; in JSON they are the
array's objects, counted from 1. In both text formats `\n`, `\t` and `\\` written out mean a line break, a tab and a
backslash; any other backslash is itself.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from server.domain.texts import clean_text, find_forbidden
from server.errors import InvalidInput

DeckFormat = Literal["tsv", "csv", "json"]
MOST_PROBLEMS = 100
LONGEST_TEXT = 5000
LONGEST_NOTE = 2000

FORMAT_BY_MEDIA_TYPE: dict[str, DeckFormat] = {
    "text/tab-separated-values": "tsv",
    "text/csv": "csv",
    "application/json": "json",
}
_COLUMNS = ("question", "answer", "category", "explanation")
_REQUIRED = ("question", "answer")
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
_ESCAPE = re.compile(r"\\[nt\\]")


@dataclass(frozen=True, slots=True)
class DeckCard:
    """One card of a file: its texts trimmed, None for what is empty or missing, and the row it is from."""

    question: str
    answer: str
    explanation: str | None
    category: str | None
    row: int


@dataclass(frozen=True, slots=True)
class DeckProblem:
    """What is wrong in a row, in which column if in one, and what is accepted there."""

    row: int
    column: str | None
    problem: str
    accepted: str

    def __str__(self) -> str:
        place = f"row {self.row}" if self.column is None else f"row {self.row}, {self.column}"
        return f"{place}: {self.problem}; accepted: {self.accepted}"


class DeckFileError(InvalidInput):
    """The file is not a deck."""

    code = "invalid_deck_file"

    def __init__(self, problems: list[DeckProblem], count: int) -> None:
        """Args: problems: the first ones, at most MOST_PROBLEMS; count: how many there are in all."""
        self.problems = problems
        self.count = count
        more = "" if count == len(problems) else f", the first {len(problems)} of which are listed"
        super().__init__(
            f"The file has {count} problem{'s' if count > 1 else ''}{more}.",
            errors={
                f"rows.{problem.row}" + (f".{problem.column}" if problem.column else ""): (
                    f"{problem.problem}; accepted: {problem.accepted}"
                )
                for problem in problems
            },
        )


def parse_deck(content: bytes, format_: DeckFormat) -> list[DeckCard]:
    """The cards of a file, in its order.

    Args:
        content: UTF-8, with or without a byte order mark; lines end in LF or CRLF.
        format_: how it is written.

    Raises:
        DeckFileError: with up to MOST_PROBLEMS problems; then there is no card at all.
    """
    problems = _Problems()
    text = _decode(content, problems)
    rows = _json_rows(text, problems) if format_ == "json" else _table_rows(text, format_, problems)
    cards = [card for row, cells in rows if (card := _card(row, cells, problems)) is not None]
    _refuse_duplicates(cards, problems)
    if not cards and not problems.count:
        problems.add(1, None, "there is no card in the file", "at least one row with question and answer")
    problems.raise_if_any()
    return cards


def as_json(cards: Sequence[DeckCard]) -> str:
    """Cards as the query import_cards takes them."""
    return orjson.dumps(
        [{name: text for name in _COLUMNS if (text := getattr(card, name)) is not None} for card in cards]
    ).decode()


class _Problems:
    """Collects problems: keeps the first ones, counts all."""

    def __init__(self) -> None:
        self.kept: list[DeckProblem] = []
        self.count = 0

    def add(self, row: int, column: str | None, problem: str, accepted: str) -> None:
        self.count += 1
        if len(self.kept) < MOST_PROBLEMS:
            self.kept.append(DeckProblem(row, column, problem, accepted))

    def raise_if_any(self) -> None:
        if self.count:
            raise DeckFileError(self.kept, self.count)


def _decode(content: bytes, problems: _Problems) -> str:
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    try:
        return content.decode()
    except UnicodeDecodeError:
        for row, line in enumerate(content.split(b"\n"), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                problems.add(row, None, f"byte {error.start + 1} of the line is not UTF-8", "text in UTF-8")
        problems.raise_if_any()
        raise


Cells = dict[str, str]


def _json_rows(text: str, problems: _Problems) -> Iterator[tuple[int, Cells]]:
    accepted = "an array of objects {question, answer, explanation?, category?} of strings"
    try:
        items: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        problems.add(error.lineno, None, f"not JSON: {error.msg}, column {error.colno} of the line", accepted)
        return
    if not isinstance(items, list):
        problems.add(1, None, "not an array", accepted)
        return
    for row, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            problems.add(row, None, "not an object", accepted)
            continue
        known = True
        for name, value in item.items():
            if name not in _COLUMNS:
                problems.add(row, str(name)[:64], "unknown field", ", ".join(_COLUMNS))
                known = False
            elif not isinstance(value, str) and not (value is None and name not in _REQUIRED):
                problems.add(row, name, "not a string", "a string")
                known = False
        if known:
            yield (
                row,
                {name: value for name, value in item.items() if value is not None},
            )


def _table_rows(text: str, format_: DeckFormat, problems: _Problems) -> Iterator[tuple[int, Cells]]:
    """The rows of a table by the names of their columns; rows without any text are left out."""
    columns: tuple[str, ...] | None = None
    for row, raw_cells in _split_csv(text, problems) if format_ == "csv" else _split_tsv(text):
        if not any(cell.strip() for cell in raw_cells):
            continue
        if columns is None:
            columns, is_header = _read_header(row, raw_cells, problems)
            if not columns:
                return
            if is_header:
                continue
        if len(raw_cells) != len(columns):
            problems.add(
                row, None, f"{len(raw_cells)} columns", f"{len(columns)} columns, as in the file's first row"
            )
            continue
        yield (
            row,
            {
                name: _ESCAPE.sub(lambda match: _ESCAPES[match[0]], cell)
                for name, cell in zip(columns, raw_cells, strict=True)
            },
        )


def _split_tsv(text: str) -> Iterator[tuple[int, list[str]]]:
    for row, line in enumerate(text.split("\n"), start=1):
        yield row, line.split("\t")


def _split_csv(text: str, problems: _Problems) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    row = 1
    try:
        for cells in reader:
            yield row, cells
            row = reader.line_num + 1
    except csv.Error as error:
        problems.add(
            row, None, f"not CSV: {error}", 'commas between columns, "text, with ""quotes""" where needed'
        )


def _read_header(row: int, cells: list[str], problems: _Problems) -> tuple[tuple[str, ...], bool]:
    """The columns' names, and whether this row says them; no names where it can't be used."""
    names = tuple(cell.strip().lower() for cell in cells)
    recognised = [name for name in names if name in _COLUMNS]
    if len(recognised) == len(names) or set(_REQUIRED) <= set(recognised):
        for name in dict.fromkeys(names):
            if name not in _COLUMNS:
                problems.add(row, None, f"unknown column {name[:64]!r}", ", ".join(_COLUMNS))
            elif names.count(name) > 1:
                problems.add(row, None, f"column {name!r} twice", "each column once")
        for name in _REQUIRED:
            if name not in names:
                problems.add(row, None, f"no column {name!r}", ", ".join(_COLUMNS))
        return ((), True) if problems.count else (names, True)
    if not len(_REQUIRED) <= len(names) <= len(_COLUMNS):
        problems.add(row, None, f"{len(names)} columns", f"2 to 4 columns: {', '.join(_COLUMNS)}")
        return (), False
    return _COLUMNS[: len(names)], False


def _card(row: int, cells: Cells, problems: _Problems) -> DeckCard | None:
    before = problems.count
    texts: dict[str, str | None] = {}
    for name in _COLUMNS:
        text = clean_text(cells.get(name, ""))
        longest = LONGEST_TEXT if name in _REQUIRED else LONGEST_NOTE
        if not text and name in _REQUIRED:
            problems.add(row, name, "empty", f"1 to {longest} characters")
        elif len(text) > longest:
            problems.add(row, name, f"{len(text)} characters", f"at most {longest} characters")
        forbidden = find_forbidden(text)
        if forbidden is not None:
            problems.add(row, name, f"control character {forbidden}", "text with line breaks and tabs")
        texts[name] = text or None
    question, answer = texts["question"], texts["answer"]
    if question is None or answer is None or problems.count > before:
        return None
    return DeckCard(question, answer, texts["explanation"], texts["category"], row)


def _refuse_duplicates(cards: list[DeckCard], problems: _Problems) -> None:
    first_rows: dict[str, int] = {}
    for card in cards:
        first = first_rows.setdefault(card.question, card.row)
        if first != card.row:
            problems.add(card.row, "question", f"the same as in row {first}", "each question once")

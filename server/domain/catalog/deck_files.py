r"""Decks as files: tab-separated, CSV or JSON bytes in, cards out, or every problem with the row it is in.

The columns are question, answer, category, explanation. A first row that names them says which are there; without
one, rows have two to four columns in that order. Rows count from 1 as lines of the file; in JSON they are the
array's objects, counted from 1. In both text formats `\n`, `\t` and `\\` written out mean a line break, a tab and a
backslash; any other backslash is itself.

A file is read piece by piece and its cards are packed into batches at once, so that beside the file itself there is
never more than a piece of it in memory as text, and the time it takes grows with its size alone.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import orjson

from server.domain.values import clean_text, find_forbidden
from server.errors import BodyTooLarge, InvalidInput

DeckFormat = Literal["tsv", "csv", "json"]
MAX_ROWS = 100_000
MOST_PROBLEMS = 20
LONGEST_TEXT = 5000
LONGEST_NOTE = 2000

FORMAT_BY_MEDIA_TYPE: dict[str, DeckFormat] = {
    "text/tab-separated-values": "tsv",
    "text/csv": "csv",
    "application/json": "json",
}
_COLUMNS = ("question", "answer", "category", "explanation")
_REQUIRED = ("question", "answer")
# What is read of a file at once: in a table at least a line, in JSON at least an object, so neither may be longer.
_PIECE = 1 << 18
_SPACE = re.compile(r"[ \t\n\r]*")
_BATCH_CARDS = 2500
_BATCH_BYTES = 1 << 18
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


@dataclass(frozen=True, slots=True)
class Batch:
    """Cards that follow each other in a file, as the query import_cards takes them.

    Args:
        first: the position of the first one among the file's cards, from 1.
        count: how many there are.
        cards: a JSON array, in UTF-8.
    """

    first: int
    count: int
    cards: bytes


class TooManyRows(BodyTooLarge):
    """An import takes at most 100,000 rows: send the file in parts."""

    code = "too_many_rows"


class DeckFileError(InvalidInput):
    """The file is not a deck."""

    code = "invalid_deck_file"

    def __init__(self, problems: list[DeckProblem], count: int) -> None:
        """Args: problems: the first ones, at most MOST_PROBLEMS; count: how many there are in all."""
        self.problems = problems
        self.count = count
        errors = {
            f"rows.{problem.row}" + (f".{problem.column}" if problem.column else ""): (
                f"{problem.problem}; accepted: {problem.accepted}"
            )
            for problem in problems
        }
        super().__init__(
            f"The file has {count} problem{'s' if count > 1 else ''}.",
            errors=errors,
            unlisted=count - len(problems),
        )


def pack_deck(content: bytes, format_: DeckFormat, *, encoding: str = "utf-8") -> list[Batch]:
    """The cards of a file, in its order. Arguments and errors as of `read_cards`."""
    batches: list[Batch] = []
    cards: list[dict[str, str]] = []
    size, first = 0, 1

    def finish() -> None:
        nonlocal size, first
        batches.append(Batch(first, len(cards), orjson.dumps(cards)))
        first += len(cards)
        size = 0
        cards.clear()

    for card in read_cards(content, format_, encoding=encoding):
        texts = {name: text for name in _COLUMNS if (text := getattr(card, name)) is not None}
        cards.append(texts)
        size += sum(map(len, texts.values()))
        if len(cards) == _BATCH_CARDS or size >= _BATCH_BYTES:
            finish()
    if cards:
        finish()
    return batches


def read_cards(content: bytes, format_: DeckFormat, *, encoding: str = "utf-8") -> Iterator[DeckCard]:
    """The cards of a file one by one, in its order; of a file that is wrong the error comes after the last of them.

    Args:
        content: with or without a byte order mark; lines end in LF or CRLF.
        format_: how it is written.
        encoding: of its text, by Python's name.

    Raises:
        TooManyRows: it has more than MAX_ROWS.
        InvalidInput: it is not in another encoding than UTF-8.
        DeckFileError: with up to MOST_PROBLEMS problems.
    """
    problems = _Problems()
    if encoding != "utf-8":
        content = _as_utf8(content, encoding)
    _refuse_other_bytes(content, problems)
    # Line ends are left as they are: the readers know what they mean, within quotes and outside.
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    rows = _json_rows(stream, problems) if format_ == "json" else _table_rows(stream, format_, problems)
    first_rows: dict[bytes, int] = {}
    for row, cells in rows:
        card = _card(row, cells, problems)
        if card is None:
            continue
        first = first_rows.setdefault(card.question.encode(), row)
        if first != row:
            problems.add(row, "question", f"the same as in row {first}", "each question once")
        yield card
    if not first_rows and not problems.count:
        problems.add(1, None, "there is no card in the file", "at least one row with question and answer")
    problems.raise_if_any()


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


def _as_utf8(content: bytes, encoding: str) -> bytes:
    decoder = codecs.getincrementaldecoder(encoding)()
    recoded = io.BytesIO()
    for start in range(0, len(content), _PIECE):
        pending, _ = decoder.getstate()
        piece = content[start : start + _PIECE]
        try:
            recoded.write(decoder.decode(piece, start + _PIECE >= len(content)).encode())
        except UnicodeError as error:
            place = error.start if isinstance(error, UnicodeDecodeError) else 0
            byte = start - len(pending) + place + 1
            raise InvalidInput(f"The file is not in {encoding}: see byte {byte}.") from error
    return recoded.getvalue()


def _refuse_other_bytes(content: bytes, problems: _Problems) -> None:
    """Report each line that is not in UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content) + 1, _PIECE):
            decoder.decode(content[start : start + _PIECE], start + _PIECE > len(content))
    except UnicodeDecodeError:
        for row, line in enumerate(io.BytesIO(content.removeprefix(codecs.BOM_UTF8)), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                problems.add(row, None, f"byte {error.start + 1} of the line is not UTF-8", "text in UTF-8")
        problems.raise_if_any()
        raise


Cells = dict[str, str]


def _json_rows(stream: TextIO, problems: _Problems) -> Iterator[tuple[int, Cells]]:
    accepted = "an array of objects {question, answer, explanation?, category?} of strings"
    for row, item in enumerate(_json_items(stream, problems, accepted), start=1):
        if row > MAX_ROWS:
            raise TooManyRows
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
            yield row, {name: value for name, value in item.items() if value is not None}


def _json_items(stream: TextIO, problems: _Problems, accepted: str) -> Iterator[Any]:
    """The elements of an array, each parsed by itself: no more of the array than _PIECE is ever in memory."""
    window = _Window(stream)
    if window.peek() != "[":
        problems.add(1, None, "not an array", accepted)
        return
    try:
        window.skip()
        if window.peek() == "]":
            window.skip()
        else:
            yield window.parse()
            while window.peek() == ",":
                window.skip()
                yield window.parse()
            window.expect("]", "neither a comma nor the end of the array")
            window.skip()
        window.expect("", "there is more after the array")
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        line, column = window.position(error.pos if isinstance(error, json.JSONDecodeError) else None)
        problems.add(line, None, f"not JSON: {reason}, column {column} of the line", accepted)


class _Window:
    """A place in a JSON text, with some of what follows."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._place = 0
        self._is_last = False
        # Of the window's beginning, both from 0.
        self._line = 0
        self._column = 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._place)
            self._place = self._place if space is None else space.end()
            if self._place < len(self._text) or not self._read():
                return self._text[self._place : self._place + 1]

    def skip(self) -> None:
        """Go on behind the next character."""
        self._place += 1

    def expect(self, character: str, otherwise: str) -> None:
        """See that it is the next one; raises ValueError with what is wrong otherwise."""
        if self.peek() != character:
            raise ValueError(otherwise)

    def parse(self) -> Any:
        """The value that comes next.

        Raises:
            ValueError: there is none, or one that is longer than a piece.
            RecursionError: it is nested too deep.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except ValueError:
                # The window may end within the value.
                if len(self._text) - self._place >= _PIECE or not self._read():
                    raise
                continue
            if end == len(self._text) and self._read():
                continue  # a number may go on
            self._place = end
            return value

    def position(self, place: int | None) -> tuple[int, int]:
        """Line and column, from 1, of a place in the window; by default of where it is."""
        place = self._place if place is None else place
        lines = self._text.count("\n", 0, place)
        column = place - self._text.rfind("\n", 0, place) - 1 if lines else place + self._column
        return self._line + lines + 1, column + 1

    def _read(self) -> bool:
        """Forget what lies behind, and read on; False where there is no more."""
        if self._is_last:
            return False
        more = self._stream.read(_PIECE)
        if not more:
            self._is_last = True
            return False
        line, column = self.position(self._place)
        self._line, self._column = line - 1, column - 1
        self._text = self._text[self._place :] + more
        self._place = 0
        return True


def _table_rows(stream: TextIO, format_: DeckFormat, problems: _Problems) -> Iterator[tuple[int, Cells]]:
    """The rows of a table by the names of their columns; rows without any text are left out."""
    columns: tuple[str, ...] | None = None
    count = 0
    for row, raw_cells in (_split_csv if format_ == "csv" else _split_tsv)(stream, problems):
        if not any(map(str.strip, raw_cells)):
            continue
        if columns is None:
            columns, is_header = _read_header(row, raw_cells, problems)
            if not columns:
                return
            if is_header:
                continue
        count += 1
        if count > MAX_ROWS:
            raise TooManyRows
        if len(raw_cells) != len(columns):
            problems.add(
                row, None, f"{len(raw_cells)} columns", f"{len(columns)} columns, as in the file's first row"
            )
            continue
        yield (
            row,
            {
                name: _ESCAPE.sub(lambda match: _ESCAPES[match[0]], cell) if "\\" in cell else cell
                for name, cell in zip(columns, raw_cells, strict=True)
            },
        )


def _split_tsv(stream: TextIO, problems: _Problems) -> Iterator[tuple[int, list[str]]]:
    row, pending = 0, ""
    while True:
        piece = stream.read(_PIECE)
        *lines, pending = (pending + piece).split("\n")
        if not piece:
            lines.append(pending)
        for line in lines:
            row += 1
            if line:
                yield row, line.split("\t")
        if not piece:
            return
        if len(pending) >= _PIECE:
            problems.add(
                row + 1, None, f"a line of {_PIECE} characters and more", "lines that end in LF or CRLF"
            )
            return


def _split_csv(stream: TextIO, problems: _Problems) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(_lines(stream), strict=True)
    row = 1
    try:
        for cells in reader:
            yield row, cells
            row = reader.line_num + 1
    except csv.Error as error:
        problems.add(
            row, None, f"not CSV: {error}", 'commas between columns, "text, with ""quotes""" where needed'
        )


def _lines(stream: TextIO) -> Iterator[str]:
    while line := stream.readline(_PIECE):
        if len(line) == _PIECE and line[-1] not in "\r\n":
            raise csv.Error(f"a line of {_PIECE} characters and more")
        yield line


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

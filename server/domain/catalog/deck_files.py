"""Decks as files: tables or JSON as bytes in, cards out, or every problem with the row it is in.

How tables are read is in `deck_tables`. Rows count from 1 as lines of the file; in JSON they are the array's objects,
counted from 1. All text is stored in Unicode's NFC.

A file is read piece by piece and its cards are packed into batches at once, so that beside the file itself there is
never more than a piece of it in memory as text, and the time it takes grows with its size alone.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import orjson

from server.domain.catalog.deck_headers import COLUMNS, PASSED_OVER, REQUIRED, column_of
from server.domain.catalog.deck_problems import MAX_ROWS, Problems, TooManyRows
from server.domain.catalog.deck_rows import HeaderRule, Preamble, Seen, name_cells
from server.domain.catalog.deck_tables import PIECE, read_table
from server.domain.catalog.deck_workbooks import XLSX_TYPE, read_workbook
from server.domain.values import clean_text, find_forbidden
from server.errors import InvalidInput

DeckFormat = Literal["tsv", "csv", "txt", "json", "xlsx"]
LONGEST_TEXT = 5000
LONGEST_NOTE = 2000
_LONGEST_SHOWN = 60

FORMAT_BY_MEDIA_TYPE: dict[str, DeckFormat] = {
    "text/tab-separated-values": "tsv",
    "text/csv": "csv",
    "text/plain": "txt",
    "application/json": "json",
    XLSX_TYPE: "xlsx",
}
# By the names that Python knows them under. Others are rare in files, or are no encodings of text at all.
_ENCODING_NAMES = (
    "utf-8 ascii utf-16 utf-16-le utf-16-be iso8859-1 iso8859-2 iso8859-15 "
    "cp1250 cp1251 cp1252 mac-roman koi8-r shift_jis gb18030 big5 euc_kr"
)
_ENCODINGS = frozenset(_ENCODING_NAMES.split())
ENCODINGS_ACCEPTED = (
    "utf-8, utf-16, iso-8859-1, -2 or -15, windows-1250, -1251 or -1252, macintosh, koi8-r, shift_jis, gb18030, big5 "
    "or euc-kr"
)
_ZIP = b"PK\x03\x04"
_SAVE = "the table saved as CSV UTF-8, or as text with tabs"
# By their first bytes, in small letters: what it is, and what is accepted instead.
_OTHER_KINDS = {
    b"pk\x03\x04": ("a workbook or another zip archive, not text", f"{XLSX_TYPE}, .xlsx; or {_SAVE}"),
    b"\xd0\xcf\x11\xe0": (
        "an old workbook (.xls) or one with a password",
        f"a workbook as .xlsx, or {_SAVE}",
    ),
    b"%pdf": ("a PDF file, not text", _SAVE),
    b"{\\rtf": ("rich text (RTF), not plain text", "plain text: in TextEdit, Format, Make Plain Text"),
    b"<!doctype html": ("a web page, not a table", "the file itself: was it downloaded after signing in?"),
    b"<html": ("a web page, not a table", "the file itself: was it downloaded after signing in?"),
}
Cells = dict[str, str]
_SPACE = re.compile(r"[ \t\n\r]*")
_BOMS_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BATCH_CARDS = 2500
_BATCH_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class DeckCard:
    """One card of a file: its texts trimmed, None for what is empty or missing, and the row it is from."""

    question: str
    answer: str
    explanation: str | None
    category: str | None
    row: int


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


@dataclass(frozen=True, slots=True)
class Reading:
    r"""How a file is to be read, where it does not say so itself.

    Args:
        encoding: of its text, by Python's name; a byte order mark of UTF-16 counts more.
        dialect: what divides its columns, by a name of `deck_tables.SEPARATORS`; None to find it.
        escapes: whether `\n` written out is a line break in tab-separated text without quotes.
        header: `none` if the first row is a card, `skip` if it is none; None to find out.
    """

    encoding: str = "utf-8"
    dialect: str | None = None
    escapes: bool = True
    header: HeaderRule | None = None


USUAL = Reading()


@dataclass(frozen=True, slots=True)
class PackedDeck:
    """The cards of a file.

    Args:
        batches: the cards in the file's order.
        seen: how it was taken.
        questions: the SHA-256 of all questions, each ended by U+001F: whether a deck has these cards in this order.
    """

    batches: list[Batch]
    seen: Seen
    questions: bytes


def find_encoding(charset: str) -> str | None:
    """Python's name of a charset; None if it is not one that we read."""
    try:
        encoding = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return None
    return encoding if encoding in _ENCODINGS else None


def pack_deck(content: bytes, format_: DeckFormat, reading: Reading = USUAL) -> PackedDeck:
    """The cards of a file, in its order. Arguments and errors as of `read_cards`."""
    batches: list[Batch] = []
    cards: list[dict[str, str]] = []
    size, first = 0, 1
    questions = hashlib.sha256()

    def finish() -> None:
        nonlocal size, first
        batches.append(Batch(first, len(cards), orjson.dumps(cards)))
        questions.update("".join(f"{card['question']}\x1f" for card in cards).encode())
        first += len(cards)
        size = 0
        cards.clear()

    seen, read = read_cards(content, format_, reading)
    for card in read:
        texts = {name: text for name in COLUMNS if (text := getattr(card, name)) is not None}
        cards.append(texts)
        size += sum(map(len, texts.values()))
        if len(cards) == _BATCH_CARDS or size >= _BATCH_BYTES:
            finish()
    if cards:
        finish()
    return PackedDeck(batches, seen, questions.digest())


def read_cards(
    content: bytes, format_: DeckFormat, reading: Reading = USUAL
) -> tuple[Seen, Iterator[DeckCard]]:
    """How a file is taken, and its cards in order; of a file that is wrong the error comes after the last of them.

    What is seen is whole when the last card has been read.

    Args:
        content: with or without byte order marks; lines end in LF, CRLF or CR.
        format_: how it is written.
        reading: what the file does not say itself.

    Raises:
        TooManyRows: it has more than MAX_ROWS.
        InvalidInput: it is not in another encoding than UTF-8.
        UnsupportedMediaType: it is a workbook, and openpyxl is not installed.
        DeckFileError: with up to MOST_PROBLEMS problems.
    """
    problems, seen = Problems(), Seen()
    if format_ == "xlsx" and content.startswith(_ZIP):
        rows = name_cells(
            read_workbook(content, problems, seen), Preamble(header=reading.header), ", ", problems, seen
        )
        return seen, _checked(rows, problems, seen)
    _refuse_other_kinds(content, reading.encoding, problems)
    if format_ == "xlsx":
        problems.add(1, None, "not a workbook (.xlsx)", _SAVE)
        problems.raise_if_any()
        raise AssertionError("a problem is raised")
    encoding = "utf-16" if content[:2] in _BOMS_UTF16 else reading.encoding
    if encoding != "utf-8":
        content = _as_utf8(content, encoding)
    while content.startswith(codecs.BOM_UTF8):
        content = content[len(codecs.BOM_UTF8) :]
    if format_ != "json" and b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    _refuse_other_bytes(content, problems)
    if format_ == "json":
        stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
        seen.dialect = "json"
        return seen, _checked(_json_rows(stream, problems, seen), problems, seen)
    table = read_table(
        content,
        kind=format_,
        dialect=reading.dialect,
        escapes=reading.escapes,
        header=reading.header,
        problems=problems,
        seen=seen,
    )
    if table is None:
        problems.raise_if_any()
        raise AssertionError("a table that can't be read has a problem")
    return seen, _checked(table, problems, seen)


def _checked(rows: Iterator[tuple[int, Cells]], problems: Problems, seen: Seen) -> Iterator[DeckCard]:
    first_rows: dict[bytes, int] = {}
    for row, cells in rows:
        card = _card(row, cells, problems)
        if card is None:
            continue
        first = first_rows.setdefault(card.question.encode(), row)
        if first != row:
            problems.add(row, "question", f"the same as in row {first}", "each question once")
        if seen.first_card is None:
            seen.first_card = (row, shorten(card.question), shorten(card.answer))
        yield card
    if not first_rows and not problems.count:
        problems.add(1, None, "there is no card in the file", "at least one row with question and answer")
    problems.raise_if_any()


def _as_utf8(content: bytes, encoding: str) -> bytes:
    decoder = codecs.getincrementaldecoder(encoding)()
    recoded = io.BytesIO()
    for start in range(0, len(content), PIECE):
        pending, _ = decoder.getstate()
        piece = content[start : start + PIECE]
        try:
            recoded.write(decoder.decode(piece, start + PIECE >= len(content)).encode())
        except UnicodeError as error:
            place = error.start if isinstance(error, UnicodeDecodeError) else 0
            byte = start - len(pending) + place + 1
            raise InvalidInput(f"The file is not in {encoding}: see byte {byte}.") from error
    return recoded.getvalue()


def _refuse_other_kinds(content: bytes, encoding: str, problems: Problems) -> None:
    """Report a file that is no text of the kinds that we read, as its first bytes show. Args: encoding: as stated."""
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, (what, accepted) in _OTHER_KINDS.items():
        if start.startswith(beginning):
            problems.add(1, None, what, accepted)
    has_order = encoding in {"utf-16-le", "utf-16-be"} or content[:2] in _BOMS_UTF16
    if not has_order and b"\0" in (content[:1], content[1:2]):
        problems.add(1, None, "UTF-16 without a byte order mark", "charset=utf-16-le or charset=utf-16-be")
    problems.raise_if_any()


def _refuse_other_bytes(content: bytes, problems: Problems) -> None:
    """Report each line that is not in UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content) + 1, PIECE):
            decoder.decode(content[start : start + PIECE], start + PIECE > len(content))
    except UnicodeDecodeError:
        for row, line in enumerate(io.BytesIO(content.removeprefix(codecs.BOM_UTF8)), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                problems.add(
                    row,
                    None,
                    f"byte {error.start + 1} of the line is not UTF-8",
                    "text in UTF-8, or the charset named, such as windows-1252",
                )
        problems.raise_if_any()
        raise


def _json_rows(stream: TextIO, problems: Problems, seen: Seen) -> Iterator[tuple[int, Cells]]:
    accepted = "an array of objects {question, answer, explanation?, category?} of strings"
    for row, item in enumerate(_json_items(stream, problems, accepted), start=1):
        if row > MAX_ROWS:
            raise TooManyRows
        if not isinstance(item, dict):
            problems.add(row, None, "not an object", accepted)
            continue
        cells: Cells = {}
        for key, given in item.items():
            name = column_of(key)
            if name == PASSED_OVER:
                seen.warn(f"Fields that are no part of a card were passed over, such as {key[:64]}.")
                continue
            is_list = isinstance(given, list) and all(isinstance(tag, str) for tag in given)
            value = ", ".join(given) if name == "category" and is_list else given
            if name is None:
                problems.add(row, str(key)[:64], "unknown field", ", ".join(COLUMNS))
            elif name in cells:
                problems.add(row, name, "twice", "each column once")
            elif not isinstance(value, str) and not (value is None and name not in REQUIRED):
                problems.add(row, name, "not a string", "a string")
            else:
                cells[name] = value or ""
                continue
            break
        else:
            yield row, cells


def _json_items(stream: TextIO, problems: Problems, accepted: str) -> Iterator[Any]:
    """The elements of an array, each parsed by itself: no more of the array than PIECE is ever in memory."""
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
                if len(self._text) - self._place >= PIECE or not self._read():
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
        more = self._stream.read(PIECE)
        if not more:
            self._is_last = True
            return False
        line, column = self.position(self._place)
        self._line, self._column = line - 1, column - 1
        self._text = self._text[self._place :] + more
        self._place = 0
        return True


def shorten(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _card(row: int, cells: Cells, problems: Problems) -> DeckCard | None:
    before = problems.count
    texts: dict[str, str | None] = {}
    for name in COLUMNS:
        text = clean_text(cells.get(name, ""))
        longest = LONGEST_TEXT if name in REQUIRED else LONGEST_NOTE
        if not text and name in REQUIRED:
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

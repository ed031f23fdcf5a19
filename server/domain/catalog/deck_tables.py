r"""Tables of cards as spreadsheets and Anki write them: which character divides the columns, and what they are named.

A dialect is the name of that character. It is the one that the caller names, or the file (`sep=;` in its first line, or
Anki's `#separator:tab`), or that divides the first row into the names of columns. Without any of these it is the only
one that divides every row into two to four columns; where two would fit the file is refused. A tab in a file that is
no CSV is conclusive: text has none.

A file whose columns are divided by tabs may be plain or quoted. It is quoted where cells begin with quotes and all of
it reads so; in plain text quotes are text, and `\n` written out is a line break, unless the caller says otherwise.
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from server.domain.catalog.deck_problems import MAX_ROWS, Problems, TooManyRows

COLUMNS = ("question", "answer", "category", "explanation")
REQUIRED = ("question", "answer")
SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
# What is read of a file at once: at least a line, so none may be longer.
PIECE = 1 << 18
_FOUND = ("tab", "comma", "semicolon")
_SYNONYMS = {
    "question": "question questions front term prompt frage vorderseite begriff",
    "answer": "answer answers back definition antwort rückseite",
    "explanation": "explanation extra note notes erklärung",
    "category": "category categories tag tags kategorie",
}
_COLUMN_BY_NAME = {name: column for column, names in _SYNONYMS.items() for name in names.split()}
# A first row of nothing but such names, also of several words, names columns that are none of ours.
_NO_CARD_NAMES = (
    "arabic article audio author bemerkung body book buch card cards chapter chinese choice class clue code "
    "column comment comments concept content correct count created data date datum deck description deutsch "
    "difficulty due dutch ease englisch english example examples expression field file fill foreign französisch "
    "fremdsprache french frequency german grammar greek group guid hanzi heading hebrew hint id image index info "
    "input interval italian item japanese kana kanji kapitel karte key keyword korean label language lapses latin "
    "learning lektion lesson level line link list meaning memo mnemonic modified module muttersprache name native "
    "no nr num number option order output page part phonetic phrase picture pinyin polish portuguese pos position "
    "pronunciation rating reading reference remarks reply response result reverse romaji row russian satz "
    "schwierigkeit section sentence set side solution sound source spanisch spanish speech stufe subject summary "
    "swedish synonym target text thema theme titel title topic transcription translation translations turkish "
    "type unit url value vocab vocabulary vokabel word words wort wörter zeile zielsprache übersetzung"
)
_NO_CARD = frozenset(_NO_CARD_NAMES.split())
_WORDS = re.compile(r"[^\W\d_]+")
_NAMES_ACCEPTED = (
    "question (front, term, prompt), answer (back, definition), explanation (extra, notes), category (tags)"
)
_ANKI_LINE = re.compile(
    r"#(separator|html|columns|notetype|deck|tags|if matches|(?:notetype|deck|tags|guid) column):(.*)",
    re.IGNORECASE,
)
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_CELL_BEGINS_QUOTED = re.compile(rb'(?:\A|[\n\t])"')
_TAG = re.compile(r"</?([a-z][a-z0-9]*)\b[^<>]*>", re.IGNORECASE)
_BREAKS = frozenset({"br", "div", "p"})
_FORMATS = frozenset({"b", "i", "u", "em", "strong", "span", "font"})


@dataclass(slots=True)
class _Preamble:
    """What the lines before the rows say of them."""

    lines: int = 0
    separator: str | None = None
    is_anki: bool = False
    is_html: bool = False
    names: str | None = None
    # By their number from 1: a column of ours, or "-" for one that is passed over.
    special: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by the names of their columns, each with its line; rows without any text are left out."""

    dialect: str
    rows: Iterator[tuple[int, dict[str, str]]]


def read_table(
    content: bytes, *, is_csv: bool, dialect: str | None, escapes: bool, problems: Problems
) -> Table | None:
    r"""The rows of a table; None where it can't be said how it is divided.

    Args:
        content: in UTF-8, its lines ended by line feeds.
        is_csv: whether it is said to be CSV, where a comma is as likely as a tab.
        dialect: a key of SEPARATORS; None to find it from the file.
        escapes: whether `\n` is a line break in plain text with tabs.
        problems: gets what is wrong.
    """
    preamble = _read_preamble(content)
    body = content.split(b"\n", preamble.lines)[preamble.lines] if preamble.lines else content
    separator = SEPARATORS[dialect] if dialect else preamble.separator
    if separator is None:
        separator = _find_separator(_sample(body), preamble.lines + 1, is_csv=is_csv, problems=problems)
    if separator is None:
        return None
    is_quoted = separator != "\t" or _is_quoted(body, preamble.lines, problems if escapes else None)
    if problems.count:
        return None
    is_escaped = escapes and not is_quoted and not preamble.is_anki
    name = next((name for name, character in SEPARATORS.items() if character == separator), separator)
    rows = _split_quoted(body, separator, problems) if is_quoted else _split_plain(body, problems)
    return Table(name, _cards(rows, preamble, separator, problems, is_escaped=is_escaped))


def _read_preamble(content: bytes) -> _Preamble:
    preamble = _Preamble()
    start = 0
    while True:
        end = content.find(b"\n", start, start + 2000)
        line = content[start : end if end >= 0 else start + 2000].decode(errors="replace").rstrip("\t,; ")
        if preamble.lines == 0 and (
            named := _SEP_LINE.fullmatch(content[:end].decode(errors="replace").strip(" "))
        ):
            return _Preamble(lines=1, separator=named[1])
        found = _ANKI_LINE.fullmatch(line)
        if end < 0 or found is None or ("\t" in found[2] and found[1].lower() != "columns"):
            return preamble
        start = end + 1
        preamble.lines += 1
        preamble.is_anki = True
        key, value = found[1].lower(), found[2].strip(" ")
        if key == "separator":
            character = {**SEPARATORS, "colon": ":", "space": " "}.get(value.lower(), value)
            # A tab or a comma by itself was stripped from the line's end.
            raw = content[:end].decode(errors="replace").rpartition(":")[2]
            preamble.separator = (character or raw or "\t")[0]
        elif key == "html":
            preamble.is_html = value.lower() == "true"
        elif key == "columns":
            preamble.names = found[2]
        elif key.endswith(" column") and value.isdecimal():
            preamble.special[int(value)] = "category" if key == "tags column" else "-"


def _sample(body: bytes) -> str:
    """The beginning of a table, of whole lines."""
    body = body.lstrip(b"\n")
    sample = body[:PIECE]
    if len(body) > PIECE:
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    return sample.decode(errors="ignore")


def _find_separator(sample: str, row: int, *, is_csv: bool, problems: Problems) -> str | None:
    records = {name: _records(sample, SEPARATORS[name]) for name in _FOUND}
    for name, rows in records.items():
        if rows and {column_of(cell) for cell in rows[0]} >= set(REQUIRED):
            return SEPARATORS[name]
    if not is_csv and "\t" in sample:
        return "\t"
    fitting = [name for name, rows in records.items() if rows and all(map(_fits, rows))]
    if len(fitting) > 1:
        first = next(line for line in sample.split("\n") if line.strip())
        problems.add(
            row,
            None,
            f"{' and '.join(fitting)} would both divide every row, such as {_excerpt(first)}",
            f"dialect={' or dialect='.join(fitting)}, or a first row of column names",
        )
        return None
    return SEPARATORS[fitting[0]] if fitting else "," if is_csv else "\t"


def _records(sample: str, separator: str) -> list[list[str]] | None:
    """The rows that have text; None where they can't be divided so."""
    try:
        rows = csv.reader(io.StringIO(sample, newline=""), delimiter=separator, strict=True)
        return [row for row in rows if any(map(str.strip, row))]
    except csv.Error:
        return None


def _fits(cells: list[str]) -> bool:
    return 2 <= len(cells) <= len(COLUMNS) + sum(not cell.strip() for cell in cells[len(COLUMNS) :]) and bool(
        cells[0].strip() and cells[1].strip()
    )


def _is_quoted(body: bytes, lines_before: int, problems: Problems | None) -> bool:
    r"""Whether a table with tabs is quoted. Args: problems: gets it if `\n` may be either; None where it is text."""
    begins = _CELL_BEGINS_QUOTED.search(body)
    if begins is None:
        return False
    rows = _count_rows(_split_quoted(body, "\t", scratch := Problems()))
    is_sound = rows is not None and not scratch.count
    if not is_sound:
        # What can't be read as plain text either is reported as what it looks like.
        return _count_rows(_split_plain(body, scratch)) is None
    is_evident = body.startswith(b'"') or b'""' in body or rows != _count_rows(_split_plain(body, scratch))
    if problems is not None and not is_evident and b"\\n" in body:
        problems.add(
            lines_before + body.count(b"\n", 0, begins.start() + 1) + 1,
            None,
            r"some cells are in quotes and some hold \n written out, which is a line break only without quoting",
            r"escapes=none for a file with quoting and \n as text, or line breaks in quoted cells",
        )
    return True


def _count_rows(rows: Iterator[tuple[int, list[str]]]) -> int | None:
    """How many rows there are, up to the most that are read; None if one has no second column."""
    count = 0
    for _, cells in rows:
        if len(cells) < 2 and any(map(str.strip, cells)):
            return None
        count += bool(cells)
        if count > MAX_ROWS:
            break
    return count


def _cards(
    rows: Iterator[tuple[int, list[str]]],
    preamble: _Preamble,
    separator: str,
    problems: Problems,
    *,
    is_escaped: bool,
) -> Iterator[tuple[int, dict[str, str]]]:
    filled = ((line + preamble.lines, cells) for line, cells in rows if any(map(str.strip, cells)))
    columns, is_headed, first = _read_columns(filled, preamble, separator, problems)
    if problems.count:
        return
    for count, (row, cells) in enumerate(chain(first, filled), start=1):
        if count > MAX_ROWS:
            raise TooManyRows
        if any(map(str.strip, cells[len(columns) :])) or (len(cells) < len(columns) and not is_headed):
            whose = "the header" if is_headed else "the file's first row"
            problems.add(
                row,
                None,
                f"{len(cells)} columns in {_excerpt(separator.join(cells))}",
                f"{len(columns)} columns, as in {whose}; "
                "a text that holds a line break or the separator in quotes",
            )
            continue
        named = dict(zip(columns, cells, strict=False))
        if "" in named and any(cell.strip() for name, cell in zip(columns, cells, strict=False) if not name):
            problems.add(row, None, "text in a column without a name", _NAMES_ACCEPTED)
            continue
        if is_escaped:
            named = {name: cell.replace(r"\n", "\n") for name, cell in named.items()}
        elif preamble.is_html:
            named = {name: _plain_text(cell, row, name, problems) for name, cell in named.items()}
        yield row, named


def _read_columns(
    rows: Iterator[tuple[int, list[str]]], preamble: _Preamble, separator: str, problems: Problems
) -> tuple[tuple[str, ...], bool, list[tuple[int, list[str]]]]:
    """The columns, whether they are named, and the first row if that is a card."""
    if preamble.names is not None:
        columns = _read_header(1, preamble.names.split(separator), preamble.special, problems)
        if columns is None and not problems.count:
            problems.add(
                1, None, f"no question and answer in #columns:{_excerpt(preamble.names)}", _NAMES_ACCEPTED
            )
        return columns or (), True, []
    for row, cells in rows:
        columns = _read_header(row, cells, preamble.special, problems)
        if columns is not None or problems.count:
            return columns or (), True, []
        return _unnamed(row, cells, preamble, problems), False, [(row, cells)]
    return (), False, []


def column_of(cell: str) -> str | None:
    """The column that a name of a header stands for."""
    return _COLUMN_BY_NAME.get(_name(cell))


def _name(cell: str) -> str:
    return unicodedata.normalize("NFC", cell[:64]).strip(" \t\n\ufeff:*\"'").casefold()


def _is_no_card(name: str) -> bool:
    """Whether a cell of a first row names a column, as it seems: each of its words is one of such names."""
    words = [word for word in _WORDS.findall(name) if len(word) > 1]
    return all(word in _NO_CARD or word in _COLUMN_BY_NAME for word in words) and (bool(words) or name == "#")


def _read_header(
    row: int, cells: list[str], special: dict[int, str], problems: Problems
) -> tuple[str, ...] | None:
    """The columns of a header; None if the row is a card. Problems are added where it is neither for certain."""
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    names = [special.get(place) or column_of(cell) for place, cell in enumerate(cells, start=1)]
    said = {name for name, cell in zip(names, cells, strict=True) if name == column_of(cell)} - {None}
    if not said >= set(REQUIRED):
        others = [_name(cell) for cell, name in zip(cells, names, strict=True) if name is None]
        if all(_is_no_card(name) or (said & set(REQUIRED) and name.isalpha()) for name in others):
            missing = [name for name in REQUIRED if name not in said]
            problems.add(
                row,
                None,
                f"{_excerpt(', '.join(cells))} looks like a header, but has no column {' and no '.join(missing)}",
                f"{_NAMES_ACCEPTED}; above a card that reads so, a header",
            )
        return None
    columns: list[str] = []
    for name, cell in zip(names, cells, strict=True):
        if name is None and cell.strip():
            problems.add(row, None, f"unknown column {_excerpt(cell.strip().lower())}", _NAMES_ACCEPTED)
        elif name not in (None, "-") and name in columns:
            problems.add(row, None, f"column {name!r} twice", "each column once")
        columns.append(name or "")
    return tuple(columns)


def _unnamed(row: int, cells: list[str], preamble: _Preamble, problems: Problems) -> tuple[str, ...]:
    """The columns of a table without a header, by its first row."""
    if preamble.is_anki:
        fields = iter(REQUIRED)
        places = range(1, max([len(cells), *preamble.special]) + 1)
        return tuple(preamble.special.get(place) or next(fields, "") for place in places)
    count = len(cells)
    while count > len(COLUMNS) and not cells[count - 1].strip():
        count -= 1
    if not len(REQUIRED) <= count <= len(COLUMNS):
        seen = _excerpt(cells[0] if count == 1 else ", ".join(cells[:10]))
        problems.add(row, None, f"{count} columns in {seen}", f"2 to 4 columns: {', '.join(COLUMNS)}")
    return COLUMNS[:count]


def _plain_text(cell: str, row: int, column: str, problems: Problems) -> str:
    """The text of a cell with HTML: breaks are line breaks, formatting is dropped, the rest is refused."""

    def replace(tag: re.Match[str]) -> str:
        name = tag[1].lower()
        if name in _BREAKS:
            return "" if tag[0].startswith("</p") or (name == "div" and tag.start() == 0) else "\n"
        if name not in _FORMATS:
            problems.add(
                row, column, f"HTML that a card can't show: {_excerpt(tag[0])}", "text, and line breaks"
            )
        return ""

    if "<" not in cell and "&" not in cell:
        return cell
    return html.unescape(_TAG.sub(replace, cell)).replace("\xa0", " ")


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _split_plain(body: bytes, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    stream = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8", newline="")
    row, pending = 0, ""
    while True:
        piece = stream.read(PIECE)
        *lines, pending = (pending + piece).split("\n")
        if not piece:
            lines.append(pending)
        for line in lines:
            row += 1
            if line:
                yield row, line.split("\t")
        if not piece:
            return
        if len(pending) >= PIECE:
            problems.add(
                row + 1, None, f"a line of {PIECE} characters and more", "lines that end in LF or CRLF"
            )
            return


def _split_quoted(body: bytes, separator: str, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    stream = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8", newline="")
    reader = csv.reader(_lines(stream), delimiter=separator, strict=True)
    row = 1
    try:
        for cells in reader:
            yield row, cells
            row = reader.line_num + 1
    except csv.Error as error:
        problems.add(
            row,
            None,
            f"not CSV: {error}",
            'columns divided by one character, "text, with ""quotes""" where needed',
        )


def _lines(stream: io.TextIOWrapper) -> Iterator[str]:
    while line := stream.readline(PIECE):
        if len(line) == PIECE and line[-1] not in "\r\n":
            raise csv.Error(f"a line of {PIECE} characters and more")
        yield line

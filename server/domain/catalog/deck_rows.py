"""Rows of cells, of a table or a workbook, as cards by the names of their columns; and the markup within a cell.

What a reader had to decide is noted in `Seen`, so that whoever imports the file can see it: the row that was taken for
the header, what was passed over, and what looks like markup and was kept as text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Literal, get_args

from server.domain.catalog.deck_headers import (
    COLUMNS,
    NAMES_ACCEPTED,
    PASSED_OVER,
    REQUIRED,
    WAYS_OUT,
    find_odd_first_row,
    is_numbered,
    names_cards,
    read_header,
)
from server.domain.catalog.deck_problems import MAX_ROWS, Problems, TooManyRows, excerpt

Row = tuple[int, list[str]]
HeaderRule = Literal["none", "skip"]
HEADER_RULES: tuple[HeaderRule, ...] = get_args(HeaderRule)
_MOST_WARNINGS = 20
_HOW_TO_NAME = f"{NAMES_ACCEPTED} in the header, or in a line #columns: of Anki"
# Rows above a header that have one cell with text: a title, as Numbers and people write them.
_MOST_TITLES = 3
_ROWS_COMPARED = 50

_MARKUP = re.compile(
    r"</?(?:br|div|p|b|i|u|em|strong|span|font|img|ul|ol|li|sub|sup|a|hr|table|code|pre)(?:\s[^<>]*)?/?>"
    r"|&(?:nbsp|lt|gt|amp|quot);",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?([a-z][a-z0-9]*)\b[^<>]*>", re.IGNORECASE)
_MEDIA = re.compile(r"\[sound:[^\]\[]*\]|\{\{c\d+::")
_BLOCKS = frozenset({"div", "p", "ul", "li", "pre", "h1", "h2", "h3", "h4", "h5", "h6"})
_FORMATS = frozenset({"b", "i", "u", "em", "strong", "span", "font", "code", "small", "big"})
# Where a block begins or ends; text has no such character.
_EDGE = "\x1e"
_EDGES = re.compile(f"\n?{_EDGE}+")


@dataclass(slots=True)
class Seen:
    """What was seen in a file, and how it was taken.

    Args:
        dialect: what divides its columns, `json` or `xlsx`.
        header: the cells of the row that was taken for the header; None if there is none.
        first_card: its row, question and answer, the texts cut; None before it is read.
        warnings: what else has to be known, at most twenty sentences.
    """

    dialect: str = ""
    header: list[str] | None = None
    first_card: tuple[int, str, str] | None = None
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """In a line, without the warnings."""
        header = "none" if self.header is None else repr(", ".join(self.header))
        row, question, answer = self.first_card or (0, "", "")
        return f"dialect {self.dialect}; header {header}; first card, row {row}: {question!r}, {answer!r}"

    def warn(self, sentence: str) -> None:
        """Note a sentence, once."""
        if sentence not in self.warnings and len(self.warnings) < _MOST_WARNINGS:
            self.warnings.append(sentence)


@dataclass(slots=True)
class Preamble:
    """What the lines before the rows say of them, and whoever sends the file.

    Args:
        lines: how many they are.
        separator: the character that divides the columns.
        is_anki: whether they are Anki's.
        is_html: whether cells hold HTML; None where it is not said.
        names: the cells of Anki's `#columns:`.
        special: by their number from 1, a column of ours, or PASSED_OVER.
        header: `none` if the first row is a card, `skip` if it is none; None to find out.
    """

    lines: int = 0
    separator: str | None = None
    is_anki: bool = False
    is_html: bool | None = None
    names: str | None = None
    special: dict[int, str] = field(default_factory=dict)
    header: HeaderRule | None = None


def name_cells(
    rows: Iterator[Row],
    preamble: Preamble,
    separator: str,
    problems: Problems,
    seen: Seen,
    *,
    is_escaped: bool = False,
    may_be_html: bool = False,
) -> Iterator[tuple[int, dict[str, str]]]:
    r"""Rows by the names of their columns, each with its line; rows without any text are left out.

    Args:
        rows: each with its number in the body.
        preamble: what is said of them.
        separator: what divides them, to show a row.
        problems: gets what is wrong.
        seen: gets how the rows are taken.
        is_escaped: whether `\n` is a line break.
        may_be_html: whether the file's kind may hold HTML without saying so; markup is a problem then, not text.
    """
    texts = ((line + preamble.lines, cells) for line, cells in rows if any(map(str.strip, cells)))
    columns, is_headed, filled = _read_columns(texts, preamble, separator, problems, seen)
    if not columns:
        return
    markup = _Markup(is_html=preamble.is_html, is_refused=may_be_html, problems=problems, seen=seen)
    for count, (row, cells) in enumerate(filled, start=1):
        if count > MAX_ROWS:
            raise TooManyRows
        if any(map(str.strip, cells[len(columns) :])) or (len(cells) < len(columns) and not is_headed):
            whose = "the header" if is_headed else "the file's first row"
            problems.add(
                row,
                None,
                f"{_counted(len(cells))} in {excerpt(separator.join(cells))}",
                f"{len(columns)} columns, as in {whose}; "
                "a text that holds a line break or the separator in quotes",
            )
            continue
        named = dict(zip(columns, cells, strict=False))
        if "" in named and not _is_only_numbered(columns, cells, count, problems, row, seen):
            continue
        if is_escaped:
            named = {name: cell.replace(r"\n", "\n") for name, cell in named.items()}
        yield row, {name: markup.read(cell, row, name) for name, cell in named.items() if name in COLUMNS}


def _is_only_numbered(
    columns: tuple[str, ...], cells: list[str], count: int, problems: Problems, row: int, seen: Seen
) -> bool:
    """Whether the cells in columns without a name are empty, or the first one numbers the rows."""
    texts = [
        (place, cell.strip())
        for place, (name, cell) in enumerate(zip(columns, cells, strict=False), start=1)
        if not name and cell.strip()
    ]
    if not texts:
        return True
    (place, text), *others = texts
    if place == 1 and not others and text in {str(count), str(count - 1)}:
        seen.warn("Column 1 has no name and numbers the rows: it was passed over.")
        return True
    problems.add(row, None, f"text in column {place}, which has no name: {excerpt(text)}", _HOW_TO_NAME)
    return False


def _read_columns(
    rows: Iterator[Row], preamble: Preamble, separator: str, problems: Problems, seen: Seen
) -> tuple[tuple[str, ...], bool, Iterator[Row]]:
    """The columns, whether they are named, and the rows of cards. No columns: there is a problem, or no row."""
    if preamble.names is not None:
        cells = preamble.names.split(separator)
        columns = read_header(1, cells, preamble.special, problems)
        if columns is None and not problems.count:
            problems.add(
                1, None, f"no question and answer in #columns:{excerpt(preamble.names)}", NAMES_ACCEPTED
            )
        return _headed(cells, columns, problems, seen), True, rows
    before = problems.count
    first = list(islice(rows, _ROWS_COMPARED + 1))
    if not first or preamble.header == "none":
        return _unnamed(first, preamble, problems), False, chain(first, rows)
    if preamble.header == "skip":
        columns = _unnamed(first[1:] or first, preamble, problems)
        seen.warn(f"Row {first[0][0]} was passed over as a header: {excerpt(', '.join(first[0][1]))}.")
        return columns, False, chain(first[1:], rows)
    titles = count_titles([cells for _, cells in first])
    for row, cells in first[:titles]:
        seen.warn(
            f"Row {row} stands above the header and was passed over: {excerpt(' '.join(cells).strip())}."
        )
    (row, cells), others = first[titles], first[titles + 1 :]
    # Anki's own files have no header: what reads like one is a card.
    if not preamble.is_anki or names_cards(cells):
        columns = read_header(row, cells, preamble.special, problems)
        if columns is not None or problems.count > before:
            return _headed(cells, columns, problems, seen), True, chain(others, rows)
    if not preamble.is_anki:
        _refuse_odd_rows(first, problems)
    columns = _unnamed(first, preamble, problems)
    return (() if problems.count > before else columns), False, chain(first, rows)


def _headed(
    cells: list[str], columns: tuple[str, ...] | None, problems: Problems, seen: Seen
) -> tuple[str, ...]:
    if columns is None or problems.count:
        return ()
    seen.header = [cell.strip()[:64] for cell in cells[: len(columns)]]
    passed = [cell for cell, name in zip(seen.header, columns, strict=True) if name == PASSED_OVER]
    if passed:
        seen.warn(f"Columns that are no part of a card were passed over: {', '.join(passed)}.")
    return columns


def count_titles(rows: list[list[str]]) -> int:
    """How many rows with one cell of text stand above a header, as a title does; 0 without a header below them."""
    for place, cells in enumerate(rows[: _MOST_TITLES + 1]):
        if names_cards(cells):
            return place
        if sum(bool(cell.strip()) for cell in cells) > 1:
            break
    return 0


def _refuse_odd_rows(first: list[Row], problems: Problems) -> None:
    """What reads as cards and does not look so: a first row of names that we don't know, a first column of numbers."""
    (row, cells), *others = first
    below = find_odd_first_row(cells, [cells for _, cells in others])
    if below is not None:
        problems.add(
            row,
            None,
            f"{excerpt(', '.join(cells))} is a header or a card: the rows below it are {below}",
            f"{WAYS_OUT}; or a header: {NAMES_ACCEPTED}",
        )
    elif is_numbered([cells for _, cells in first]):
        problems.add(
            row,
            None,
            f"the first column only numbers the rows: {excerpt(', '.join(cells))}",
            f"a header: {NAMES_ACCEPTED}; the column of numbers as no",
        )
    elif not others and len(cells) > len(REQUIRED) and all(";" in cell for cell in cells[1:-1]):
        problems.add(
            row,
            None,
            f"all cards seem to stand in one row, divided by semicolons: {excerpt(', '.join(cells))}",
            "each card in a row of its own; or a header",
        )


def _unnamed(first: list[Row], preamble: Preamble, problems: Problems) -> tuple[str, ...]:
    """The columns of a table without a header, by its first row."""
    if not first:
        return ()
    row, cells = first[0]
    if preamble.is_anki:
        fields = iter(REQUIRED)
        places = range(1, max([len(cells), *preamble.special]) + 1)
        return tuple(preamble.special.get(place) or next(fields, "") for place in places)
    count = len(cells)
    while count > len(COLUMNS) and not cells[count - 1].strip():
        count -= 1
    if not len(REQUIRED) <= count <= len(COLUMNS):
        text = excerpt(cells[0] if count == 1 else ", ".join(cells[:10]))
        problems.add(row, None, f"{_counted(count)} in {text}", f"2 to 4 columns: {', '.join(COLUMNS)}")
        return ()
    return COLUMNS[:count]


def _counted(columns: int) -> str:
    return f"{columns} column{'' if columns == 1 else 's'}"


class _Markup:
    """Reads the text of cells that hold HTML, or may hold it.

    Args:
        is_html: whether they do; None where nobody says so.
        is_refused: whether markup is a problem where nobody says what it is; else it is text, with a warning.
        problems: gets what a card can't show.
        seen: gets the warnings.
    """

    def __init__(self, *, is_html: bool | None, is_refused: bool, problems: Problems, seen: Seen) -> None:
        self._is_html = is_html
        self._is_refused = is_refused
        self._problems = problems
        self._seen = seen
        self._is_warned = False

    def read(self, cell: str, row: int, column: str) -> str:
        """The text of a cell. With HTML, breaks are line breaks, formatting is dropped, the rest is refused."""
        has_media = "[sound:" in cell or "{{c" in cell
        if "<" not in cell and "&" not in cell and not has_media:
            return cell
        media = _MEDIA.search(cell) if has_media else None
        if self._is_html is None:
            self._judge(media or _MARKUP.search(cell), row, column)
            return cell
        if media is not None:
            what = "a cloze deletion" if media[0].startswith("{{") else "a sound"
            self._problems.add(
                row, column, f"{what}, which a card can't show: {excerpt(media[0])}", "text, and line breaks"
            )
        return self._plain(cell, row, column) if self._is_html else cell

    def _judge(self, found: re.Match[str] | None, row: int, column: str) -> None:
        """Markup in a file that does not say whether it is markup."""
        if found is None:
            return
        if self._is_refused:
            self._problems.add(
                row,
                column,
                f"{excerpt(found[0])} is HTML of Anki or text, and the file does not say which",
                "#html:true or #html:false as the first line; as TSV or CSV it is text",
            )
        elif not self._is_warned:
            self._is_warned = True
            self._seen.warn(
                f"Row {row}, {column}: {excerpt(found[0])} was kept as text. "
                "If it is HTML, put a line #html:true above the first row."
            )

    def _plain(self, cell: str, row: int, column: str) -> str:
        def replace(tag: re.Match[str]) -> str:
            name = tag[1].lower()
            if name == "br":
                return "\n"
            if name in _BLOCKS:
                return f"{_EDGE}- " if name == "li" and tag[0][1] != "/" else _EDGE
            if name not in _FORMATS:
                self._problems.add(
                    row, column, f"HTML that a card can't show: {excerpt(tag[0])}", "text, and line breaks"
                )
            return ""

        # A break at the end of a block adds no line to the one that the block ends.
        text = _EDGES.sub("\n", _TAG.sub(replace, cell).strip(_EDGE))
        return html.unescape(text).replace("\xa0", " ")

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
import io
import re
from collections.abc import Callable, Iterator
from typing import Literal

from server.domain.catalog.deck_headers import COLUMNS, PASSED_OVER, names_cards
from server.domain.catalog.deck_problems import MAX_ROWS, Problems, excerpt
from server.domain.catalog.deck_rows import HeaderRule, Preamble, Seen, count_titles, name_cells

SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
TableKind = Literal["tsv", "csv", "txt"]
# What is read of a file at once: at least a line, so none may be longer.
PIECE = 1 << 18
# What is looked at to find how a table is divided; a card at its longest is smaller.
_SAMPLE = 1 << 16
_ANKI_LINE = re.compile(
    r"#(separator|html|columns|notetype|deck|tags|if matches|(?:notetype|deck|tags|guid) column):(.*)",
    re.IGNORECASE,
)
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_CSV_ERRORS = {
    "unexpected end of data": "not CSV: a cell begins with a quote, and no quote ends it",
    **{
        f"'{one}' expected after '\"'": "not CSV: text after the quote that ends a cell"
        for one in SEPARATORS.values()
    },
}
_CELL_BEGINS_QUOTED = re.compile(rb'(?:\A|[\n\t])"')

# What may divide question and answer in notes, and no program writes as a table.
_OTHER_FORMS: dict[str, Callable[[str], bool]] = {
    "'::'": lambda line: line.find("::") > 0,
    "'>>'": lambda line: line.find(">>") > 0,
    "'Q:' and 'A:'": lambda line: line.startswith(("Q:", "A:")),
}
_DASHES: dict[str, Callable[[str], bool]] = {"' - '": lambda line: " - " in line or " \u2013 " in line}


def read_table(
    content: bytes,
    *,
    kind: TableKind,
    dialect: str | None,
    escapes: bool,
    header: HeaderRule | None,
    problems: Problems,
    seen: Seen,
) -> Iterator[tuple[int, dict[str, str]]] | None:
    r"""The rows of a table by the names of their columns; None where it can't be said how it is divided.

    Args:
        content: in UTF-8, its lines ended by line feeds.
        kind: what it is said to be: in CSV a comma is as likely as a tab, and text (txt) may be HTML of Anki.
        dialect: a key of SEPARATORS; None to find it from the file.
        escapes: whether `\n` is a line break in plain text with tabs.
        header: whether the first row is a card, if that is said.
        problems: gets what is wrong.
        seen: gets how the table is taken.
    """
    preamble = _read_preamble(content)
    preamble.header = header
    body = content.split(b"\n", preamble.lines)[preamble.lines] if preamble.lines else content
    separator = SEPARATORS[dialect] if dialect else preamble.separator
    if separator is None:
        separator = _find_separator(
            _sample(body), preamble.lines + 1, is_csv=kind == "csv", problems=problems
        )
    if separator is None:
        return None
    is_quoted = separator != "\t" or _is_quoted(body, preamble.lines, problems if escapes else None)
    if problems.count:
        return None
    seen.dialect = next((name for name, character in SEPARATORS.items() if character == separator), separator)
    rows = _split_quoted(body, separator, problems) if is_quoted else _split_plain(body, problems)
    return name_cells(
        rows,
        preamble,
        separator,
        problems,
        seen,
        is_escaped=escapes and not is_quoted and not preamble.is_anki,
        may_be_html=kind == "txt",
    )


def _read_preamble(content: bytes) -> Preamble:
    preamble = Preamble()
    start = 0
    while True:
        end = content.find(b"\n", start, start + 2000)
        line = content[start : end if end >= 0 else start + 2000].decode(errors="replace").rstrip("\t,; ")
        if preamble.lines == 0 and (
            named := _SEP_LINE.fullmatch(content[:end].decode(errors="replace").strip(" "))
        ):
            return Preamble(lines=1, separator=named[1])
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
            preamble.special[int(value)] = "category" if key == "tags column" else PASSED_OVER


def _sample(body: bytes) -> str:
    """The beginning of a table, of whole lines."""
    body = body.lstrip(b"\n")
    sample = body[:_SAMPLE]
    if len(body) > _SAMPLE:
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    return sample.decode(errors="ignore")


def _find_separator(sample: str, row: int, *, is_csv: bool, problems: Problems) -> str | None:
    lines = [line.strip() for line in sample.split("\n") if line.strip()]
    if len(lines) > 1 and {"|", "-"} <= set(lines[1]) <= set("|-: "):
        problems.add(row, None, f"a Markdown table: {excerpt(lines[0])}", "a table as CSV, or with tabs")
        return None
    records = {name: _records(sample, character) for name, character in SEPARATORS.items()}
    for name, rows in records.items():
        if rows and names_cards(rows[count_titles(rows)]):
            return SEPARATORS[name]
    if not is_csv and "\t" in sample:
        return "\t"
    form = _find_other_form(lines, {} if is_csv else _DASHES)
    if form is not None:
        problems.add(
            row,
            None,
            f"{form} would divide every line, such as {excerpt(lines[0])}",
            "a tab, a comma or a semicolon between question and answer; if there is one, say dialect=",
        )
        return None
    fitting = [name for name, rows in records.items() if rows and all(map(_fits, rows))]
    if len(fitting) == 1:
        fitting += [
            name for name, rows in records.items() if rows and name not in fitting and _nearly_fit(rows)
        ]
    if len(fitting) > 1:
        problems.add(
            row,
            None,
            f"{' and '.join(fitting)} would both divide the rows, such as {excerpt(lines[0])}",
            f"dialect={' or dialect='.join(fitting)}, or a first row of column names",
        )
        return None
    return SEPARATORS[fitting[0]] if fitting else "," if is_csv else "\t"


def _find_other_form(lines: list[str], others: dict[str, Callable[[str], bool]]) -> str | None:
    """What divides all lines as people note cards, without a table; None if nothing, or some have quotes."""
    # Obsidian's first line, and Markdown's headings.
    lines = [line for line in lines if not line.startswith("#")]
    if not lines or any(line.startswith('"') for line in lines):
        return None
    forms = _OTHER_FORMS | others
    return next((name for name, divides in forms.items() if all(map(divides, lines))), None)


def _records(sample: str, separator: str) -> list[list[str]] | None:
    """The rows that have text; None where they can't be divided so."""
    rows: list[list[str]] = []
    try:
        read = csv.reader(io.StringIO(sample, newline=""), delimiter=separator, strict=True)
        rows.extend(row for row in read if any(map(str.strip, row)))
    except csv.Error as error:
        # A sample that was cut, so of many characters, may end within a cell. What comes before that is whole.
        return rows if "unexpected end" in str(error) and len(sample) > _SAMPLE // 4 - 4 else None
    return rows


def _fits(cells: list[str]) -> bool:
    return 2 <= len(cells) <= len(COLUMNS) + sum(not cell.strip() for cell in cells[len(COLUMNS) :]) and bool(
        cells[0].strip() and cells[1].strip()
    )


def _nearly_fit(rows: list[list[str]]) -> bool:
    """Whether rows are of one width but for a few, as the right separator leaves them where cells are missing."""
    fitting = [len(row) for row in rows if _fits(row)]
    return len(set(fitting)) == 1 and len(rows) > 2 and len(rows) - len(fitting) <= max(1, len(rows) // 10)


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
            _CSV_ERRORS.get(str(error), f"not CSV: {error}"),
            'columns divided by one character, "text, with ""quotes""" where needed',
        )


def _lines(stream: io.TextIOWrapper) -> Iterator[str]:
    while line := stream.readline(PIECE):
        if len(line) == PIECE and line[-1] not in "\r\n":
            raise csv.Error(f"a line of {PIECE} characters and more")
        yield line

"""Workbooks of spreadsheets (.xlsx) as rows of cells, and cards as a workbook. Needs openpyxl, the extra `xlsx`.

A workbook is a zip archive of XML, which may be a thousand times larger than the file. So its parts are looked through
as bytes first: how large they are, how many elements and rows they have, and what in them is no text of a cell. Only
what passes is parsed, and no more of it at once than a row.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime, time
from typing import IO, Any
from xml.etree.ElementTree import ParseError

from server.domain.catalog.deck_headers import COLUMNS
from server.domain.catalog.deck_problems import MAX_ROWS, Problems, TooManyRows, excerpt
from server.domain.catalog.deck_rows import Row, Seen
from server.errors import UnsupportedMediaType

XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_MISSING = (
    "Workbooks (.xlsx) need the package openpyxl (pip install openpyxl). Or save the sheet as CSV UTF-8."
)
_PIECE = 1 << 18
# Of all XML in the archive; of a part beside the sheets and their texts; of what is in a sheet beside its rows.
_MOST_BYTES = 48 << 20
_MOST_BYTES_ASIDE = 4 << 20
_MOST_PARTS = 1000
_MOST_ELEMENTS = 2_500_000
_MOST_COLUMNS = 26
_OVERLAP = 1000
_LESS = "a smaller sheet, or the sheet saved as CSV"

# Patterns begin with what is rare, so that a search costs little.
_FAR_ROW = re.compile(rb' r="\d{7,}"')
_WIDE = re.compile(rb' r="([A-Z]{2,}\d+)"')
_MERGED = re.compile(rb'mergeCell ref="([A-Z0-9:]+)"')
_FORMULA = re.compile(rb' r="([A-Z]+\d+)"[^<>]*>\s*<(?:\w+:)?f[\s/>]')
_RAISED = re.compile(rb'vertAlign val="su(?:per|b)script"')
_IN_CELLS = (
    (_WIDE, _WIDE, "a cell beyond the column Z: {}", "at most 26 columns"),
    (_MERGED, _MERGED, "merged cells: {}", "each cell by itself: unmerge them, and fill each row"),
    (
        re.compile(rb"[<:]f[\s/>]"),
        _FORMULA,
        "a formula: {}",
        "its value: copy the cells, and paste them as values",
    ),
)
# What openpyxl raises of archives that are no workbooks.
_UNREADABLE = (
    ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, RuntimeError, TypeError,
    ValueError, ParseError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def has_workbooks() -> bool:
    """Whether the package is installed that reads and writes them."""
    return importlib.util.find_spec("openpyxl") is not None


@functools.cache
def _openpyxl() -> Any:
    """The package, loaded when the first workbook comes.

    Raises:
        UnsupportedMediaType: it is not installed.
    """
    try:
        package = importlib.import_module("openpyxl")
    except ImportError as error:
        raise UnsupportedMediaType(_MISSING) from error
    # It warns of drawings, rules and the like that it drops.
    warnings.filterwarnings("ignore", module="openpyxl")
    return package


def read_workbook(content: bytes, problems: Problems, seen: Seen) -> Iterator[Row]:
    """The rows of the one sheet that has cells with text, each as long as its last cell needs.

    Args:
        content: the file.
        problems: gets what is wrong.
        seen: gets what was read otherwise than a spreadsheet shows it.

    Raises:
        UnsupportedMediaType: openpyxl is not installed.
        TooManyRows: it has more than MAX_ROWS.
    """
    package = _openpyxl()
    seen.dialect = "xlsx"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _look_through(archive, problems)
        if problems.count:
            return
        book = package.load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        sheets = [sheet for sheet in book.worksheets if _has_text(sheet)]
        if len(sheets) > 1:
            names = ", ".join(excerpt(sheet.title) for sheet in sheets[:10])
            problems.add(
                1, None, f"several sheets have cells: {names}", "one sheet a file: save each by itself"
            )
            return
        for sheet in sheets:
            for row, cells in enumerate(_rows(sheet), start=1):
                yield row, [_text(cell, row, problems, seen) for cell in cells]
    except _UNREADABLE:
        problems.add(
            1, None, "not a workbook that can be read", "a workbook (.xlsx) without a password, or CSV"
        )


def write_workbook(cards: Iterable[Any]) -> bytes:
    """A workbook with a sheet of cards, under the names of COLUMNS. All cells are text, whatever they look like.

    Raises:
        UnsupportedMediaType: openpyxl is not installed.
    """
    package = _openpyxl()
    book = package.Workbook(write_only=True)
    sheet = book.create_sheet("Cards")

    def as_text(text: str) -> Any:
        cell = package.cell.WriteOnlyCell(sheet, value=text)
        cell.data_type = "s"  # it may look like a formula or an error
        return cell

    sheet.append([as_text(name) for name in COLUMNS])
    for card in cards:
        sheet.append([as_text(card[name]) if card[name] else None for name in COLUMNS])
    output = io.BytesIO()
    book.save(output)
    return output.getvalue()


def _look_through(archive: zipfile.ZipFile, problems: Problems) -> None:
    """Report what is too large to be parsed, and what is in a sheet beside texts."""
    parts = archive.infolist()
    xml = [part for part in parts if part.filename.lower().endswith((".xml", ".rels"))]
    if len(parts) > _MOST_PARTS or sum(part.file_size for part in xml) > _MOST_BYTES:
        problems.add(1, None, "too much in the workbook", f"{_MOST_BYTES >> 20} MiB in all; {_LESS}")
        return
    elements = 0
    for part in xml:
        is_sheet = "/worksheets/" in part.filename and part.filename.endswith(".xml")
        is_aside = not is_sheet and "sharedstrings" not in part.filename.lower()
        if is_aside and part.file_size > _MOST_BYTES_ASIDE:
            problems.add(1, None, f"too much in {excerpt(part.filename)} of the workbook", _LESS)
        else:
            with archive.open(part) as opened:
                elements += _look_through_part(opened, _MOST_ELEMENTS - elements, problems, is_sheet=is_sheet)
        if problems.count:
            return


def _look_through_part(opened: IO[bytes], most: int, problems: Problems, *, is_sheet: bool) -> int:
    """The number of elements of a part. One problem is added, if there is any."""
    elements = aside = 0
    end = b""
    while piece := opened.read(_PIECE):
        window = end + piece
        if (not end and b"\0" in piece[:4]) or b"<!DOCTYPE" in window:
            problems.add(1, None, "XML that no spreadsheet writes", "a workbook that a spreadsheet has saved")
            break
        elements += piece.count(b"<")
        aside += 0 if b"row" in window else len(piece)
        if elements > most or (is_sheet and aside > _MOST_BYTES_ASIDE):
            problems.add(1, None, f"too much in {excerpt(opened.name)} of the workbook", _LESS)
            break
        if (raised := _RAISED.search(window)) is not None:
            text = re.search(rb"<(?:\w+:)?t\b[^>]*>([^<]*)", window[raised.end() :])
            shown = excerpt(text[1].decode(errors="replace")) if text else "in a cell"
            problems.add(1, None, f"raised or lowered characters: {shown}", "plain text, such as 10^2")
            break
        if is_sheet and _FAR_ROW.search(window):
            raise TooManyRows
        if is_sheet and (found := _find_in_cells(window)) is not None:
            problems.add(*found)
            break
        end = window[-_OVERLAP:]
    return elements


def _find_in_cells(window: bytes) -> tuple[int, None, str, str] | None:
    """A problem with what a sheet has beside texts: its row, what it is, and what is accepted."""
    for mark, pattern, problem, accepted in _IN_CELLS:
        if mark.search(window) and (found := pattern.search(window)) is not None:
            place = found[1].decode()
            row = re.search(r"\d+", place)
            return int(row[0]) if row else 1, None, problem.format(place), accepted
    return None


def _rows(sheet: Any) -> Iterator[Any]:
    # What a sheet says of its size need not be so.
    sheet.reset_dimensions()
    return iter(sheet.iter_rows(max_row=10 * MAX_ROWS, max_col=_MOST_COLUMNS))


def _has_text(sheet: Any) -> bool:
    return any(cell.value is not None for cells in _rows(sheet) for cell in cells)


def _text(cell: Any, row: int, problems: Problems, seen: Seen) -> str:
    """A cell as a spreadsheet shows it, but for its formats."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, str):
        if cell.data_type == "e":
            problems.add(row, None, f"a cell with an error: {excerpt(value)}", "text")
        return value.replace("_x000D_\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        text, shown = _number(value, str(cell.number_format))
    else:
        text, shown = _moment(value), False
    if not shown:
        seen.warn(f"Row {row}: {text} is a number or a date, which the spreadsheet may show in another way.")
    return text


def _number(value: float, number_format: str) -> tuple[str, bool]:
    """A number with the 15 digits that spreadsheets show, and whether that is how they show it."""
    if number_format.strip("0.").endswith("%"):
        return f"{value * 100:.15g}%", True
    return f"{value:.15g}", number_format in {"General", "@", "0"}


def _moment(value: Any) -> str:
    if isinstance(value, datetime):
        is_day = value.time() == time()
        return value.date().isoformat() if is_day else value.isoformat(sep=" ", timespec="seconds")
    return str(value)

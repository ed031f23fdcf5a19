"""Workbooks of spreadsheets: what is read as a spreadsheet shows it, and what is refused before it costs anything."""

from __future__ import annotations

import io
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.worksheet.worksheet import Worksheet

from server.domain.catalog import deck_workbooks
from server.domain.catalog.deck_files import DeckCard, DeckFormat, Reading, pack_deck, read_cards
from server.domain.catalog.deck_headers import COLUMNS
from server.domain.catalog.deck_problems import DeckFileError, TooManyRows
from server.domain.catalog.deck_rows import Seen
from server.domain.editing.imports import write_cards
from server.domain.values import clean_text
from server.errors import UnsupportedMediaType
from tests.support.properties import examples

SHEET = "xl/worksheets/sheet1.xml"
HEAD = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    '<dimension ref="A1:XFD1048576"/><sheetData>'
)
TAIL = "</sheetData></worksheet>"


def made(rows: list[list[Any]], change: Callable[[Worksheet], None] | None = None) -> bytes:
    """A workbook with a sheet of rows."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    for row in rows:
        sheet.append(row)
    if change is not None:
        change(sheet)
    output = io.BytesIO()
    book.save(output)
    return output.getvalue()


def with_part(name: str, text: str | bytes) -> bytes:
    """A workbook with another part in the place of its own."""
    output = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(made([["Q", "A"]]))) as usual,
        zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as changed,
    ):
        for part in usual.namelist():
            if part != name:
                changed.writestr(part, usual.read(part))
        changed.writestr(name, text)
    return output.getvalue()


def read(content: bytes, reading: Reading | None = None) -> tuple[Seen, list[DeckCard]]:
    """How a workbook was read, and its cards."""
    seen, cards = read_cards(content, "xlsx", reading or Reading())
    return seen, list(cards)


def first_problem(content: bytes, format_: DeckFormat = "xlsx") -> str:
    """What is said first of a workbook that is refused."""
    with pytest.raises(DeckFileError) as caught:
        pack_deck(content, format_)
    return str(caught.value.problems[0])


def test_a_sheet_is_a_table() -> None:
    """Header, cells with line breaks, gaps and rows without text are as in a CSV."""
    seen, cards = read(made([["Front", "Back", "Tags"], ["Q", "one\ntwo"], [], [None, ""], ["R", "B", "c"]]))
    assert ("xlsx", ["Front", "Back", "Tags"], []) == (seen.dialect, seen.header, seen.warnings)
    assert [DeckCard("Q", "one\ntwo", None, None, 2), DeckCard("R", "B", None, "c", 5)] == cards
    assert "unknown column 'Hint'" in first_problem(made([["Front", "Back", "Hint"], ["Q", "A", "h"]]))
    _, cards = read(made([["Front", "Back"], ["Q", "A"]]), Reading(header="none"))
    assert ["Front", "Q"] == [card.question for card in cards]


@pytest.mark.parametrize(
    ("value", "number_format", "text", "is_warned"),
    [
        (1, "General", "1", False),
        (1.0, "General", "1", False),
        (0.1 + 0.2, "General", "0.3", False),
        (1e21, "General", "1e+21", False),
        (True, "General", "TRUE", False),
        ("007", "@", "007", False),
        (0.5, "0%", "50%", False),
        (1.5, "0.00", "1.5", True),
        (date(2024, 5, 1), "dd/mm/yyyy", "2024-05-01", True),
        (datetime(2024, 5, 1, 9, 30), "dd/mm/yyyy hh:mm", "2024-05-01 09:30:00", True),  # noqa: DTZ001 - as in sheets
        (time(9, 30), "hh:mm", "09:30:00", True),
    ],
)  # fmt: skip
def test_numbers_and_dates(value: object, number_format: str, text: str, is_warned: bool) -> None:
    """They read as a spreadsheet shows them; where it shows another form, that is a warning."""
    content = made([["Question", "Answer"], ["Q", value]], lambda sheet: _format(sheet, number_format))
    seen, (card,) = read(content)
    assert (text, is_warned) == (card.answer, bool(seen.warnings))


def _format(sheet: Worksheet, number_format: str) -> None:
    sheet["B2"].number_format = number_format


def _merge(sheet: Worksheet) -> None:
    sheet.merge_cells("C2:C3")


def _add_sheet(sheet: Worksheet) -> None:
    assert sheet.parent is not None
    sheet.parent.create_sheet("More")["A1"] = "x"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (made([["Question", "Answer"], ["Q", "=1+1"]]), "row 2: a formula: B2; accepted: its value"),
        (made([["Question", "Answer"], ["Q", "#REF!"]]), "row 2: a cell with an error: '#REF!'"),
        (made([["Question", "Answer", "Tags"], ["Q", "A", "c"], ["R", "B"]], _merge), "merged cells: C2:C3"),
        (
            made([["Question", "Answer"], ["Q", "A"]], _add_sheet),
            "several sheets have cells: 'Sheet', 'More'",
        ),
        (made([["Q", "A"] + [None] * 30 + ["x"]]), "row 1: a cell beyond the column Z: AG1"),
        (made([]), "there is no card in the file"),
        (b"PK\x03\x04 and nothing more", "not a workbook that can be read"),
        (b"Question,Answer\nQ,A\n", "not a workbook (.xlsx)"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old workbook (.xls) or one with a password"),
        (with_part("xl/workbook.xml", "<nothing>"), "not a workbook that can be read"),
        (
            with_part(SHEET, HEAD + "<row><c t='s'><v>7</v></c></row>" + TAIL),
            "not a workbook that can be read",
        ),
        (
            with_part(SHEET, '<!DOCTYPE x [<!ENTITY a "aaaa">]>' + HEAD + TAIL),
            "XML that no spreadsheet writes",
        ),
        (with_part(SHEET, (HEAD + TAIL).encode("utf-16")), "XML that no spreadsheet writes"),
        (
            with_part(
                "xl/sharedStrings.xml",
                '<sst><si><r><t>10</t></r><r><rPr><vertAlign val="superscript"/></rPr><t>2</t></r></si></sst>',
            ),
            "raised or lowered characters: '2'",
        ),
    ],
)
def test_what_a_workbook_may_not_hold(content: bytes, told: str) -> None:
    """What could be misread, or can't be read, is refused with its cell."""
    assert told in first_problem(content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (with_part("xl/media/x.xml", b"\n" * (49 << 20)), "too much in the workbook"),
        (with_part("xl/styles.xml", b"\n" * (5 << 20)), "too much in 'xl/styles.xml'"),
        (with_part(SHEET, f"{HEAD}<row>{'<c/>' * 1_400_000}</row>{TAIL}"), "too much in 'xl/worksheets/sheet1.xml'"),
        (with_part(SHEET, f"{HEAD}{'<row/>' * 2_600_000}{TAIL}"), "too much in 'xl/worksheets/sheet1.xml'"),
        (with_part("xl/sharedStrings.xml", f"<sst>{'<si/>' * 2_600_000}</sst>"), "too much in 'xl/sharedStrings"),
    ],
)  # fmt: skip
def test_a_bomb_is_refused_before_it_is_parsed(content: bytes, told: str) -> None:
    """A small file that would become gigabytes costs no more memory than the pieces in which it is looked through."""
    assert len(content) < 200_000
    tracemalloc.start()
    try:
        assert told in first_problem(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_rows_far_below_are_not_walked_to() -> None:
    """A row with a huge number is too many rows, whatever the sheet says of its size."""
    with pytest.raises(TooManyRows):
        pack_deck(with_part(SHEET, f'{HEAD}<row r="99999999999999"><c><v>1</v></c></row>{TAIL}'), "xlsx")


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not installed: a workbook is a 415 that names the package, and CSV as another way."""
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    deck_workbooks._openpyxl.cache_clear()
    try:
        with pytest.raises(UnsupportedMediaType, match=r"pip install openpyxl.*CSV UTF-8"):
            pack_deck(made_before, "xlsx")
    finally:
        deck_workbooks._openpyxl.cache_clear()


made_before = made([["Q", "A"]])
# What XML can hold: no control characters, no surrogates, none of the two that are no characters.
texts = (
    st.text(
        st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters="\ufffe\uffff") | st.just("\n")
    )
    .map(clean_text)
    .filter(bool)
)


@settings(max_examples=examples(20))
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "question": texts,
                "answer": texts,
                "category": st.none() | texts,
                "explanation": st.none() | texts,
            }
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda card: card["question"],
    )
)
def test_what_is_exported_is_imported_unchanged(cards: list[dict[str, str]]) -> None:
    """Texts that look like formulas, errors, numbers or dates, too."""
    looks = [
        {"question": text, "answer": text, "category": None, "explanation": None}
        for text in ("=1+1", "#N/A", "1.0")
    ]
    cards += [card for card in looks if card["question"] not in {other["question"] for other in cards}]  # type: ignore[misc]
    _, read_back = read(write_cards(cards, "xlsx"))
    assert cards == [{name: getattr(card, name) for name in COLUMNS} for card in read_back]

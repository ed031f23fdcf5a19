"""Deck files: what is read as which card, and what is refused with which row."""

from __future__ import annotations

import contextlib
import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.catalog.deck_files import MOST_PROBLEMS, DeckCard, DeckFileError, DeckFormat, read_cards


def parse_deck(content: bytes, format_: DeckFormat) -> list[DeckCard]:
    """All cards of a file."""
    return list(read_cards(content, format_))


def problems_of(content: bytes, format_: DeckFormat = "tsv") -> list[str]:
    """The problems of a file that is none."""
    with pytest.raises(DeckFileError) as caught:
        parse_deck(content, format_)
    assert 400 == caught.value.status
    return [str(problem) for problem in caught.value.problems]


def read(content: bytes, format_: DeckFormat = "tsv") -> list[tuple[str, str]]:
    """The questions and answers of a file."""
    return [(card.question, card.answer) for card in parse_deck(content, format_)]


@pytest.mark.parametrize(
    ("format_", "content"),
    [
        ("tsv", b"Question\tAnswer\tCategory\tExplanation\nWhy?\tBecause.\ta, b\tIt is so.\n"),
        ("csv", b'Question,Answer,Category,Explanation\nWhy?,Because.,"a, b",It is so.\n'),
        ("json", b'[{"question":"Why?","answer":"Because.","category":"a, b","explanation":"It is so."}]'),
    ],
)
def test_a_card_is_the_same_in_each_format(format_: DeckFormat, content: bytes) -> None:
    """Tab-separated, CSV and JSON say the same card; rows count lines, in JSON objects."""
    row = 1 if format_ == "json" else 2
    assert [DeckCard("Why?", "Because.", "It is so.", "a, b", row)] == parse_deck(content, format_)


@pytest.mark.parametrize("header", ["Question\tAnswer", " QUESTION \tanswer", "question\tAnswer"])
def test_a_first_row_of_names_is_a_header(header: str) -> None:
    """The names of the columns, in any case, are no card."""
    assert [("Q", "A")] == read(f"{header}\nQ\tA".encode())


def test_a_first_row_of_anything_else_is_a_card() -> None:
    """A file without a header loses nothing: its columns are question, answer, category, explanation."""
    cards = parse_deck(b"Criminal Law\tLaws about offenses.\tLegal\tWhy it matters.\nB\tC\t\t\n", "tsv")
    assert [
        DeckCard("Criminal Law", "Laws about offenses.", "Why it matters.", "Legal", 1),
        DeckCard("B", "C", None, None, 2),
    ] == cards


def test_a_header_may_order_its_columns() -> None:
    """Columns are known by their names, wherever they stand."""
    assert [DeckCard("Q", "A", "E", None, 2)] == parse_deck(b"explanation,answer,question\nE,A,Q\n", "csv")


def test_a_byte_order_mark_and_windows_lines_are_no_text() -> None:
    """A file saved by a spreadsheet on Windows reads as any other, and empty rows are skipped."""
    content = "\ufeffQuestion\tAnswer\r\n\r\nQ\tÄ\r\n\t\r\n  \r\n".encode()
    assert [("Q", "Ä")] == read(content)


@pytest.mark.parametrize("format_", ["tsv", "csv"])
def test_written_out_breaks_are_breaks(format_: DeckFormat) -> None:
    r"""`\n`, `\t` and `\\` are a line break, a tab and a backslash; any other backslash is itself."""
    separator = "\t" if format_ == "tsv" else ","
    content = rf"Q{separator}one\ntwo\tthree\\n C:\dir \x".encode()
    assert [("Q", "one\ntwo\tthree\\n C:\\dir \\x")] == read(content, format_)


def test_quotes_are_text_in_tsv_and_quoting_in_csv() -> None:
    """RFC 4180 quotes hold commas, quotes and line breaks; a tab-separated file knows no quoting."""
    assert [('"Q"', 'say "hi"')] == read(b'"Q"\tsay "hi"\n')
    assert [("Q, too", 'say "hi"\nthen go')] == read(b'"Q, too","say ""hi""\r\nthen go"\r\n', "csv")


def test_rows_of_csv_are_lines_of_the_file() -> None:
    """After a quoted line break the row number is still that of the line, as an editor shows it."""
    assert [1, 4] == [card.row for card in parse_deck(b'Q,"a\nb\nc"\nR,d\n', "csv")]


def test_texts_are_trimmed_and_bounded() -> None:
    """Question and answer have 1 to 5000 characters after trimming, the others at most 2000."""
    longest, note = "ä" * 5000, "ö" * 2000
    (card,) = parse_deck(f"  {longest} \t {longest}\t{note}\t {note} ".encode(), "tsv")
    assert (longest, longest, note, note) == (card.question, card.answer, card.category, card.explanation)
    assert [
        "row 1, question: 5001 characters; accepted: at most 5000 characters",
        "row 1, answer: empty; accepted: 1 to 5000 characters",
        "row 1, category: 2001 characters; accepted: at most 2000 characters",
    ] == problems_of(f"{longest}x\t \\n \t{note}x".encode())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"Q\tA\tC\nR\tB\n", "row 2: 2 columns; accepted: 3 columns, as in the file's first row"),
        (b"Q\n", "row 1: 1 columns; accepted: 2 to 4 columns: question, answer, category, explanation"),
        (
            b"Question\tAnswer\tNotes\nQ\tA\tN\n",
            "row 1: unknown column 'notes'; accepted: question, answer, category, explanation",
        ),
        (
            b"Question\tCategory\nQ\tC\n",
            "row 1: no column 'answer'; accepted: question, answer, category, explanation",
        ),
        (b"Question\tAnswer\tanswer\n", "row 1: column 'answer' twice; accepted: each column once"),
        (b"Q\tA\nR\tB\nQ\tC\n", "row 3, question: the same as in row 1; accepted: each question once"),
        (b"Q\tA\x00\n", "row 1, answer: control character U+0000; accepted: text with line breaks and tabs"),
        (b"Q\x1b[31m\tA\n", "row 1, question: control character U+001B; accepted: text with line breaks and tabs"),
        (b"Q\tA\nR\t\xe4\n", "row 2: byte 3 of the line is not UTF-8; accepted: text in UTF-8"),
        (b"", "row 1: there is no card in the file; accepted: at least one row with question and answer"),
        (
            b"Question\tAnswer\n",
            "row 1: there is no card in the file; accepted: at least one row with question and answer",
        ),
    ],
)  # fmt: skip
def test_what_a_table_may_not_hold(content: bytes, problem: str) -> None:
    """Each problem says the row, the column, what is wrong and what is accepted."""
    assert [problem] == problems_of(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[{", "row 1: not JSON: "),
        (b'[\n{"question": "Q", "answer": "A"}, oops]', "row 2: not JSON: "),
        (b"[" * 100_000, "row 1: not JSON: "),
        (b'{"question": "Q"}', "row 1: not an array; "),
        (b'[{"question": "Q", "answer": "A"}, 7]', "row 2: not an object; "),
        (b'[{"question": "Q", "answer": "A", "tags": "x"}]', "row 1, tags: unknown field; "),
        (b'[{"question": "Q", "answer": 7}]', "row 1, answer: not a string; "),
        (b'[{"question": null, "answer": "A"}]', "row 1, question: not a string; "),
        (b'[{"question": "Q"}]', "row 1, answer: empty; "),
        (b'[{"question": "Q\\u0000", "answer": "A"}]', "row 1, question: control character U+0000; "),
        (b'[{"question": "\\ud800", "answer": "A"}]', "row 1, question: control character U+D800; "),
        (b"[]", "row 1: there is no card in the file; "),
    ],
)
def test_what_json_may_not_hold(content: bytes, problem: str) -> None:
    """JSON is an array of objects of strings; anything else is told with its place."""
    (told,) = problems_of(content, "json")
    assert told.startswith(problem)


def test_json_may_leave_out_or_null_what_is_optional() -> None:
    """Explanation and category may be missing or null; backslashes are JSON's own business."""
    content = json.dumps([{"question": "Q", "answer": r"a\n", "category": None}]).encode()
    assert [DeckCard("Q", r"a\n", None, None, 1)] == parse_deck(content, "json")


def test_an_open_quote_is_told_with_its_row() -> None:
    """A quoted text that never ends is found where it begins."""
    (told,) = problems_of(b'Q,A\nR,"never ends\n\n', "csv")
    assert told.startswith("row 2: not CSV: ")


def test_at_most_twenty_problems_are_listed() -> None:
    """A file that is wrong throughout is reported by twenty rows, with the number of all."""
    with pytest.raises(DeckFileError, match="137 problems") as caught:
        parse_deck(b"Q\t\n" * 137, "tsv")
    assert MOST_PROBLEMS == len(caught.value.problems)
    assert (137, 117) == (caught.value.count, caught.value.unlisted)
    assert "empty; accepted: 1 to 5000 characters" == caught.value.errors["rows.1.answer"]


texts = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda text: text.strip()
)
decks = st.lists(st.tuples(texts, texts), min_size=1, unique_by=lambda card: card[0].strip())


@given(decks)
def test_whatever_csv_writes_is_read_back(cards: list[tuple[str, str]]) -> None:
    """Any texts survive a CSV writer and our reader, apart from the blanks around them."""
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(["question", "answer"])
    writer.writerows([[text.replace("\\", "\\\\") for text in card] for card in cards])
    expected = [(question.strip(), answer.strip()) for question, answer in cards]
    assert expected == read(output.getvalue().encode(), "csv")


@given(st.binary(max_size=200), st.sampled_from(["tsv", "csv", "json"]))
def test_no_bytes_at_all_are_an_accident(content: bytes, format_: DeckFormat) -> None:
    """Any bytes are either cards or a DeckFileError."""
    with contextlib.suppress(DeckFileError):
        assert parse_deck(content, format_)

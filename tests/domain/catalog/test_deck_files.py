"""Deck files: what is read as which card, and what is refused with which row."""

from __future__ import annotations

import contextlib
import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.catalog.deck_files import DeckCard, DeckFormat, Reading, read_cards
from server.domain.catalog.deck_headers import COLUMNS
from server.domain.catalog.deck_problems import MOST_PROBLEMS, DeckFileError
from server.domain.catalog.deck_tables import PIECE
from server.domain.editing.imports import write_cards
from server.domain.values import clean_text
from server.errors import InvalidInput

NAMES = (
    "question (front, term, prompt), answer (back, definition), explanation (extra, notes), category (tags)"
)
HEADER = f"accepted: {NAMES}; header=none if it is a card, header=skip to pass it over"
AS_FIRST = "as in the file's first row; a text that holds a line break or the separator in quotes"
UTF_8 = "accepted: text in UTF-8, or the charset named, such as windows-1252"


def parse_deck(content: bytes, format_: DeckFormat) -> list[DeckCard]:
    """All cards of a file."""
    return list(read_cards(content, format_)[1])


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


@pytest.mark.parametrize(
    ("content", "format_", "answer"),
    [
        (rb"Q" + b"\t" + rb"one\ntwo\tthree\\ C:\dir", "tsv", "one\ntwo\\tthree\\\\ C:\\dir"),
        (b'"Q"\t"one\\ntwo\\t"', "tsv", r"one\ntwo\t"),
        (rb"Q,C:\new\temp \nu \\server\new", "csv", r"C:\new\temp \nu \\server\new"),
        (b"#separator:tab\nQ\tC:\\new\\temp", "txt", r"C:\new\temp"),
    ],
)
def test_backslashes_are_text(content: bytes, format_: DeckFormat, answer: str) -> None:
    r"""Only `\n` in a TSV without quotes is a line break; paths and LaTeX are text everywhere else."""
    assert [("Q", answer)] == read(content, format_)


def test_without_escapes_everything_is_text() -> None:
    r"""A caller that says so keeps `\n` in a TSV."""
    _, cards = read_cards(rb"Q" + b"\tC:\\new", "tsv", Reading(escapes=False))
    assert [r"C:\new"] == [card.answer for card in cards]


@pytest.mark.parametrize("format_", ["tsv", "csv", "txt"])
@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_quotes_hold_line_breaks_separators_and_quotes(format_: DeckFormat, separator: str) -> None:
    """RFC 4180's quotes are read with each separator, which a header or the rows themselves tell."""
    rows = f'"Q{separator} too"{separator}"say ""hi""\r\nthen go"\r\n"R"{separator}"S{separator}"\r\n'
    expected = [(f"Q{separator} too", 'say "hi"\nthen go'), ("R", f"S{separator}".strip())]
    assert expected == read(rows.encode(), format_)
    assert expected == read(f"Front{separator}Back\r\n{rows}".encode(), format_)


def test_quotes_within_plain_text_are_text() -> None:
    """A text that merely begins with a quoted word is not taken for quoting."""
    content = b'Trap?\t"BYOK" is **wrong**, and\\nso is this\nsay\t"hi\n'
    assert [("Trap?", '"BYOK" is **wrong**, and\nso is this'), ("say", '"hi')] == read(content)


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        (b"#separator:semicolon\n#html:false\n#tags column:3\nQ;A;c\n", "txt"),
        (b"#separator:Comma\n#notetype column:1\n#deck column:2\n#tags column:5\nBasic,D,Q,A,c\n", "txt"),
        (b"#separator:tab\n#columns:Tags\tBack\tFront\n c\tA\tQ\n", "txt"),
        (b"#separator:\t\nFront\tBack\tTags\nQ\tA\tc\n", "txt"),
        (b"#separator:pipe\n#html:true\n#tags column:3\nQ|<b>A</b>|c\n", "txt"),
        (b"sep=;\nQ;A;c\n", "csv"),
        (b"sep=\t\nQ\tA\tc\n", "csv"),
        (b"Q;A;c\n", "csv"),
        (b"Q\tA\tc\n", "csv"),
        (b"Frage;Antwort;Kategorie\r\rQ;A;c\r", "csv"),
        ("\ufeffTerm,Definition,Tags,,\r\nQ,A,c,,\r\n".encode("utf-16-le"), "csv"),
        ("\ufeffTerm\tDefinition\tTags\nQ\tA\tc\n".encode("utf-16-be"), "txt"),
        ("\ufeff\ufefffront,notes,back,category\nQ,,A,c".encode(), "csv"),
        ("\ufeff\ufeffQ,A,c,,,\n".encode(), "csv"),
        (b'[{"Front": "Q", "back": "A", "tags": "c"}]', "json"),
    ],
)
def test_programs_write_the_same_card_in_many_ways(content: bytes, format_: DeckFormat) -> None:
    """Anki's lines, Excel's separators, line ends, encodings and empty columns, and usual names make no difference."""
    (card,) = parse_deck(content, format_)
    assert ("Q", "A", "c", None) == (card.question, card.answer, card.category, card.explanation)


def test_html_of_anki_becomes_text() -> None:
    """Breaks are line breaks and entities characters; what a card can't show is refused."""
    head = b"#separator:tab\n#html:true\n"
    assert [("1 < 2 & 3", "a\nb")] == read(head + b"1 &lt; 2 &amp; 3\ta<br>b\n", "txt")
    (told,) = problems_of(head + b"Q\t2<sup>10</sup>\n", "txt")[:1]
    assert told.startswith("row 3, answer: HTML that a card can't show: '<sup>'")


def test_missing_cells_of_a_headed_table_are_empty() -> None:
    """Excel leaves out empty cells at the end of a row; a row with more text than columns is refused."""
    assert [("Q", "A"), ("R", "B")] == read(b"Question,Answer,Category\nQ,A,c\nR,B\n", "csv")
    (told,) = problems_of(b"Question,Answer\nQ,Yes, it is\n", "csv")
    assert told.startswith("row 2: 3 columns in 'Q,Yes, it is'")


@pytest.mark.parametrize(
    ("content", "format_", "told"),
    [
        (b"Was ist a, b?;Das\nUnd, c?;Dies\n", "csv", "row 1: comma and semicolon would both divide"),
        (b"Question,Result\nQ,A\n", "csv", "row 1: 'Question, Result' looks like a header, but"),
        (b"Vocabulary,Translation\nQ,A\n", "csv", "row 1: 'Vocabulary, Translation' looks like a header"),
        (b"Title\tBody\tLevel\nQ\tA\tC\n", "tsv", "row 1: 'Title, Body, Level' looks like a header"),
        (b"#,English Word,German_Word 1\n1,Q,A\n", "csv", "row 1: '#, English Word, German_Word 1' looks like a"),
        (b"Card Side A;Card Side B\nQ;A\n", "csv", "row 1: 'Card Side A, Card Side B' looks like a header"),
        (b"Name,Text\nQ,A\n", "csv", "row 1: 'Name, Text' looks like a header, but has no column question and no"),
        (b'Q\tone\\ntwo\n"R"\tB\n', "tsv", "row 2: some cells are in quotes and some hold"),
        (b"firewall\tfilters\nby rules\n", "tsv", "row 2: 1 column in 'by rules'"),
        (b"#columns:Front\tReverse\nQ\tA\n", "txt", "row 1: 'Front, Reverse' looks like a header"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_is_refused(content: bytes, format_: DeckFormat, told: str) -> None:
    """What could be read in two ways is refused with what was seen."""
    assert problems_of(content, format_)[0].startswith(told)


def test_a_named_dialect_decides() -> None:
    """The same file is read as the caller says, and the answer says how."""
    content = b"Was ist a, b?;Das\nUnd, c?;Dies\n"
    seen, cards = read_cards(content, "csv", Reading(dialect="semicolon"))
    assert ("semicolon", ["Was ist a, b?", "Und, c?"]) == (seen.dialect, [card.question for card in cards])


def test_text_is_kept_in_nfc() -> None:
    """A decomposed letter is the same text as the composed one, so the same question; endless marks cost nothing."""
    assert [("Caf\u00e9?", "\u00fc")] == read("Cafe\u0301?\tu\u0308\n".encode())
    assert ["row 2, question: the same as in row 1; accepted: each question once"] == problems_of(
        "Caf\u00e9?\tone\nCafe\u0301?\ttwo\n".encode()
    )
    marks = "a" + "\u0301\u0323" * 2000
    assert [("Q", marks)] == read(f"Q\t{marks}\n".encode())


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
        (b"Q\tA\tC\nR\tB\n", f"row 2: 2 columns in 'R\\tB'; accepted: 3 columns, {AS_FIRST}"),
        (b"Q\n", "row 1: 1 column in 'Q'; accepted: 2 to 4 columns: question, answer, category, explanation"),
        (
            b"Question\tAnswer\tHint\nQ\tA\tN\n",
            f"row 1: unknown column 'Hint'; accepted: {NAMES}",
        ),
        (
            b"Question\tCategory\nQ\tC\n",
            f"row 1: 'Question, Category' looks like a header, but has no column answer; {HEADER}",
        ),
        (b"Question\tAnswer\tanswer\n", "row 1: column 'answer' twice; accepted: each column once"),
        (b"Q\tA\nR\tB\nQ\tC\n", "row 3, question: the same as in row 1; accepted: each question once"),
        (b"Q\tA\x00\n", "row 1, answer: control character U+0000; accepted: text with line breaks and tabs"),
        (b"Q\x1b[31m\tA\n", "row 1, question: control character U+001B; accepted: text with line breaks and tabs"),
        (b"Q\tA\nR\t\xe4\n", f"row 2: byte 3 of the line is not UTF-8; {UTF_8}"),
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
        (b'[{"question": "Q", "answer": "A"}', "row 1: not JSON: neither a comma nor the end of the array, "),
        (
            b'[{"question": "Q", "answer": "A"}\n{}]',
            "row 2: not JSON: neither a comma nor the end of the array, ",
        ),
        (b'[{"question": "Q", "answer": "A"}] []', "row 1: not JSON: there is more after the array, "),
        (b'{"question": "Q"}', "row 1: not an array; "),
        (b'[{"question": "Q", "answer": "A"}, 7]', "row 2: not an object; "),
        (b'[{"question": "Q", "answer": "A", "hint": "x"}]', "row 1, hint: unknown field; "),
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


@pytest.mark.parametrize(
    ("encoding", "content", "byte"),
    [
        ("ascii", "question\tanswer\nWho\tM\u00fche\n".encode("cp1252"), 22),
        ("cp1252", b"question\tanswer\n" + b"x" * PIECE + b"\t\x81\n", PIECE + 18),
        ("utf-16-le", "question\tanswer\nQ\t".encode("utf-16-le") + b"\x00\xdcA\x00", 37),
        ("utf-16", "\u554f\t\u7b54\n".encode("utf-16-le"), 1),  # no mark of the order of its bytes
    ],
)
def test_a_file_that_is_in_another_encoding_than_is_said(encoding: str, content: bytes, byte: int) -> None:
    """The first byte that the encoding does not have is named."""
    with pytest.raises(InvalidInput, match=f"not in {encoding}: see byte {byte}\\."):
        list(read_cards(content, "tsv", Reading(encoding=encoding))[1])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_the_order_of_bytes_may_be_said_instead_of_marked(encoding: str) -> None:
    """As the problem of a file without a byte order mark advises."""
    content = "question\tanswer\nQ\tA\n".encode(encoding)
    (told,) = problems_of(content)
    assert f"charset={encoding}" in told
    (card,) = read_cards(content, "tsv", Reading(encoding=encoding))[1]
    assert ("Q", "A") == (card.question, card.answer)


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
decks = st.lists(st.tuples(texts, texts), min_size=1, unique_by=lambda card: clean_text(card[0]))


any_text = (
    st.text(st.characters(blacklist_categories=["Cc", "Cs"]) | st.sampled_from('\n\t"\\n,;=#'), min_size=1)
    .map(clean_text)
    .filter(bool)
)


@given(decks)
def test_whatever_csv_writes_is_read_back(cards: list[tuple[str, str]]) -> None:
    """Any texts survive a CSV writer and our reader, apart from the blanks around them."""
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(["question", "answer"])
    writer.writerows(cards)
    expected = [(clean_text(question), clean_text(answer)) for question, answer in cards]
    assert expected == read(output.getvalue().encode(), "csv")


@given(st.binary(max_size=200), st.sampled_from(["tsv", "csv", "txt", "json"]))
def test_no_bytes_at_all_are_an_accident(content: bytes, format_: DeckFormat) -> None:
    """Any bytes are either cards or a DeckFileError."""
    with contextlib.suppress(InvalidInput):
        assert parse_deck(content, format_)


maybe_text = st.none() | any_text


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "question": any_text,
                "answer": any_text,
                "category": st.none() | any_text,
                "explanation": st.none() | any_text,
            }
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda card: card["question"],
    ),
    st.sampled_from(["tsv", "csv", "json"]),
)
def test_what_is_exported_is_imported_unchanged(cards: list[dict[str, str]], format_: DeckFormat) -> None:
    """Line breaks, tabs, quotes and backslashes of a deck survive its export in each format."""
    read_back = parse_deck(write_cards(cards, format_), format_)
    assert cards == [{name: getattr(card, name) for name in COLUMNS} for card in read_back]

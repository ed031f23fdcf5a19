"""Files as people's programs write them: each is read as its author meant it, or refused with what was seen."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from server.domain.catalog.deck_files import DeckFormat, Reading, pack_deck, read_cards
from server.domain.catalog.deck_problems import DeckFileError
from server.domain.catalog.deck_rows import Seen

LOOKS = "looks like a header, but has no column"
A_CARD = "is a header or a card: the rows below it are"


class File(NamedTuple):
    """A file by its program and shape, and the first card that it has, or what is said when it is refused."""

    kind: str
    format_: DeckFormat
    content: str | bytes
    expected: tuple[str, ...] | str


FILES = [
    File(
        "Excel, German", "csv", "\ufeffFrage;Antwort\r\nWas?;Bytes, zufällig\r\n", ("Was?", "Bytes, zufällig")
    ),
    File(
        "Excel, French", "csv", "Question;Réponse;Catégorie\r\nQuoi ?;Ça, là;c\r\n", ("Quoi ?", "Ça, là", "c")
    ),
    File(
        "Excel, Spanish",
        "csv",
        "Pregunta;Respuesta;Categoría\r\n¿Qué?;Eso, sí;c\r\n",
        ("¿Qué?", "Eso, sí", "c"),
    ),
    File("Excel, Italian", "csv", "Domanda;Risposta\r\nChe cos'è?;Byte\r\n", ("Che cos'è?", "Byte")),
    File(
        "Excel, Portuguese", "csv", "Pergunta;Resposta\r\nO que é?;Isto, sim\r\n", ("O que é?", "Isto, sim")
    ),
    File("Excel, Dutch", "csv", "Vraag;Antwoord\r\nWat?;Dit\r\n", ("Wat?", "Dit")),
    File("Excel, Polish", "csv", "Pytanie;Odpowiedź\r\nCo?;To\r\n", ("Co?", "To")),
    File("Excel, Russian", "csv", "Вопрос;Ответ\r\nЧто?;Это\r\n", ("Что?", "Это")),
    File("Sheets, Japanese", "csv", "問題,答え\r\n塩とは?,バイト\r\n", ("塩とは?", "バイト")),
    File("Sheets, Chinese", "csv", "问题,答案\r\n盐?,字节\r\n", ("盐?", "字节")),
    File("Sheets, Korean", "csv", "질문,답\r\n솔트란?,바이트\r\n", ("솔트란?", "바이트")),
    File("Sheets, Turkish", "csv", "Soru,Cevap\r\nNedir?,Bayt\r\n", ("Nedir?", "Bayt")),
    File("words and meanings", "csv", "Word,Meaning\nhouse,Haus\n", ("house", "Haus")),
    File("hard spaces in a header", "csv", "Term\u00a0,Definition\u00a0\nnonce,once\n", ("nonce", "once")),
    File("sides of cards", "csv", "Front side,Back side\nnonce,once\n", ("nonce", "once")),
    File("names with underscores", "csv", "question_text,answer_text\nnonce,once\n", ("nonce", "once")),
    File("names with brackets", "csv", "Question (front),Answer (back)\nnonce,once\n", ("nonce", "once")),
    File("topics", "csv", "Question,Answer,Topic\nQ1,A1,crypto\n", ("Q1", "A1", "crypto")),
    File(
        "one letter each", "csv", "Q,A\nWhat is it?,Salt\nAnd this?,A nonce\n", f"'Q, A' {A_CARD} questions"
    ),
    File(
        "unknown names",
        "csv",
        "Foo,Bar\nWhat is it?,Salt\nAnd this?,A nonce\n",
        f"'Foo, Bar' {A_CARD} questions",
    ),
    File(
        "unknown names, definitions",
        "csv",
        "Shorthand,Long form\nCIA,What keeps all data safe\nBCP,A plan to go on working\nDR,What is done after it\n",
        f"'Shorthand, Long form' {A_CARD} sentences",
    ),
    File(
        "unknown names, numbers",
        "csv",
        "Thing,Stuff,Box\na,b,1\nc,d,2\ne,f,1\n",
        f"'Thing, Stuff, Box' {A_CARD} numbers",
    ),
    File(
        "an unknown language",
        "csv",
        "Cwestiwn;Ateb\nBeth?;Halen\nPwy?;Fi\n",
        f"'Cwestiwn, Ateb' {A_CARD} questions",
    ),
    File("names of languages", "tsv", "English\tGerman\nhouse\tHaus\n", f"'English, German' {LOOKS}"),
    File("a language that we don't know", "csv", "Lakota,English\nwi,sun\n", f"'Lakota, English' {LOOKS}"),
    File("a word beside a language", "csv", "das Englische,English\n", ("das Englische", "English")),
    File("names of languages, mixed", "csv", "english,Deutsch\nhouse,Haus\n", f"'english, Deutsch' {LOOKS}"),
    File(
        "multiple choice",
        "csv",
        "Question,Option A,Correct Answer\nQ,a,a\n",
        f"'Question, Option A, Correct Answer' {LOOKS}",
    ),
    File("a vocabulary without a header", "tsv", "book\tBuch\nhouse\tHaus\n", ("book", "Buch")),
    File("articles", "tsv", "picture\tdas Bild\nword\tdas Wort\n", ("picture", "das Bild")),
    File(
        "a short first card",
        "tsv",
        "Salt\tRandom bytes\nNonce\tUsed once\nHash\tA digest of any data\n",
        ("Salt", "Random bytes"),
    ),
    File(
        "Excel, Unicode Text",
        "tsv",
        '\ufeffQuestion\tAnswer\r\n"a, b"\t"c, d"\r\n'.encode("utf-16-le"),
        ("a, b", "c, d"),
    ),
    File(
        "UTF-16 without its mark",
        "tsv",
        "Question\tAnswer\r\nQ\tA\r\n".encode("utf-16-le"),
        "UTF-16 without a byte order mark",
    ),
    File("Excel, sep=", "csv", "sep=;\r\nFrage;Antwort\r\nA, b?;c\r\n", ("A, b?", "c")),
    File("Excel on old Macs", "csv", "Question,Answer\rQ1,A1\rQ2,A2\r", ("Q1", "A1")),
    File(
        "Excel, Windows-1252",
        "csv",
        "Question;Answer\r\né?;é\r\n".encode("cp1252"),
        "byte 1 of the line is not UTF-8",
    ),
    File(
        "Excel, line breaks",
        "csv",
        'Question,Answer\r\n"List\nthem","1. a\n2. b"\r\n',
        ("List\nthem", "1. a\n2. b"),
    ),
    File("Excel, empty columns and rows", "csv", "Question,Answer,,\r\nQ1,A1,,\r\n,,,\r\n", ("Q1", "A1")),
    File("Excel, a title", "csv", "Chapter 3: Salt,\r\nQuestion,Answer\r\nQ1,A1\r\n", ("Q1", "A1")),
    File("Numbers, name of the table", "csv", "Table 1\r\nQuestion;Answer\r\nQ1;A1, b\r\n", ("Q1", "A1, b")),
    File("LibreOffice, all quoted", "csv", '"Question","Answer"\n"Q1","A1, b"\n', ("Q1", "A1, b")),
    File(
        "Sheets, quotes as text",
        "tsv",
        'Question\tAnswer\nWho?\t"Bob", he said\n',
        ("Who?", '"Bob", he said'),
    ),
    File("pandas, index", "csv", ",question,answer\n0,Q1,A1\n1,Q2,A2\n", ("Q1", "A1")),
    File("pandas, index that was read", "csv", "Unnamed: 0,question,answer\n0,Q1,A1\n", ("Q1", "A1")),
    File(
        "pandas, no header", "csv", "0,Why?,a\n1,How?,b\n2,Who?,c\n", "the first column only numbers the rows"
    ),
    File(
        "a column that is no index",
        "csv",
        ",question,answer\n7,Q1,A1\n",
        "text in column 1, which has no name: '7'",
    ),
    File("ids", "csv", "id,question,answer\n17,Q1,A1\n", ("Q1", "A1")),
    File("decks", "csv", "deck,front,back\nCrypto,Q1,A1\n", ("Q1", "A1")),
    File("another column", "csv", "Question,Answer,Hint\nQ1,A1,h\n", "unknown column 'Hint'"),
    File(
        "Anki, notes",
        "txt",
        "#separator:tab\n#html:true\n#guid column:1\n#notetype column:2\n#deck column:3\n#tags column:6\n"
        "x\tBasic\tDefault\tSalt?\tRandom<br>bytes&nbsp;first\ta b\n",
        ("Salt?", "Random\nbytes first", "a b"),
    ),
    File("Anki, cards", "txt", "#separator:tab\n#html:true\nSalt?\tBytes\n", ("Salt?", "Bytes")),
    File("Anki, blocks", "txt", "#html:true\nQ\t<div>one</div><div>two</div>end\n", ("Q", "one\ntwo\nend")),
    File(
        "Anki, an empty line", "txt", "#html:true\nQ\tone<div><br></div><div>two</div>\n", ("Q", "one\n\ntwo")
    ),
    File(
        "Anki, quoted style",
        "txt",
        '#separator:tab\n#html:true\nQ\t"<span style=""color: red"">x</span>"\n',
        ("Q", "x"),
    ),
    File("Anki, a list", "txt", "#html:true\nQ\tso:<ul><li>a</li><li>b</li></ul>\n", ("Q", "so:\n- a\n- b")),
    File(
        "Anki, a numbered list",
        "txt",
        "#html:true\nQ\t<ol><li>a</li></ol>\n",
        "HTML that a card can't show: '<ol>'",
    ),
    File(
        "Anki, a picture",
        "txt",
        '#separator:tab\n#html:true\nQ\t"<img src=""a.png"">"\n',
        "HTML that a card can't show",
    ),
    File(
        "Anki, a sound",
        "txt",
        "#html:true\nsalt [sound:a.mp3]\tSalz\n",
        "a sound, which a card can't show: '[sound:a.mp3]'",
    ),
    File(
        "Anki, cloze",
        "txt",
        "#html:false\n{{c1::Salt}} it is\tnote\n",
        "a cloze deletion, which a card can't show",
    ),
    File(
        "Anki, LaTeX", "txt", "#html:true\nQ\t\\(\\theta \\neq \\nu\\)\n", ("Q", "\\(\\theta \\neq \\nu\\)")
    ),
    File(
        "Anki, a third field",
        "txt",
        "#html:false\nQ\tA\tmore\n",
        "text in column 3, which has no name: 'more'",
    ),
    File("Anki, names as a card", "txt", "#html:false\nEnglish\tGerman\n", ("English", "German")),
    File("Anki before its lines", "txt", "Salt?\tRandom<br>bytes\n", "'<br>' is HTML of Anki or text"),
    File(
        "Anki, semicolons", "txt", "#separator:semicolon\n#html:false\nQ, one;A, two\n", ("Q, one", "A, two")
    ),
    File(
        "Anki, columns",
        "txt",
        "#separator:comma\n#columns:Vorderseite,Rückseite,Schlagwörter\nQ,A,c\n",
        ("Q", "A", "c"),
    ),
    File("HTML in a CSV", "csv", "Question,Answer\nA break?,Write <br>.\n", ("A break?", "Write <br>.")),
    File(
        "Quizlet",
        "txt",
        "firewall\tfilters packets\nproxy\tstands between\n",
        ("firewall", "filters packets"),
    ),
    File(
        "Quizlet, dashes",
        "txt",
        "firewall - filters, by rules\nproxy - between, so\n",
        "' - ' would divide every line",
    ),
    File(
        "Quizlet, one line",
        "txt",
        "firewall\tfilters;proxy\tstands between;",
        "all cards seem to stand in one row",
    ),
    File("Quizlet, line breaks", "txt", "firewall\tfilters\nby rules\n", "1 column in 'by rules'"),
    File("Mnemosyne", "txt", "What is <b>salt</b>?\tBytes\n", "'<b>' is HTML of Anki or text"),
    File(
        "SuperMemo",
        "txt",
        "Q: What is it, then?\nA: Bytes, added\n\n",
        "'Q:' and 'A:' would divide every line",
    ),
    File("Brainscape", "csv", '"What?","This, that"\n"How?","So"\n', ("What?", "This, that")),
    File("Cram", "txt", "salt\trandom bytes\nnonce\tonce\n", ("salt", "random bytes")),
    File("Memrise", "csv", "Spanish,English\nhola,hello\n", f"'Spanish, English' {LOOKS}"),
    File("Notion", "csv", '\ufeffQuestion,Answer,Status,Created time\nQ,A,Done,"May 1, 2024"\n', ("Q", "A")),
    File("Notion, its first column", "csv", "\ufeffName,Answer\nQ,A\n", f"'Name, Answer' {LOOKS}"),
    File(
        "a Markdown table", "csv", "| Question | Answer |\n|---|---|\n| Salt? | Bytes |\n", "a Markdown table"
    ),
    File("Obsidian", "txt", "#flashcards\nWhat is it::Bytes\n", "'::' would divide every line"),
    File(
        "Obsidian, commas",
        "txt",
        "What is it, then::Bytes\nAnd this, say::Once\n",
        "'::' would divide every line",
    ),
    File("pipes", "csv", "Question|Answer\nA, b?|c\n", ("A, b?", "c")),
    File(
        "semicolons with a gap",
        "csv",
        "Was, ja?;Das, so\nUnd, nun?;Dies, so\nKlar, ja?,\n",
        "comma and semicolon would both",
    ),
    File("JSON of an app", "json", '[{"id":1,"front":"Q","back":"A","tags":["a","b"]}]', ("Q", "A", "a, b")),
    File("JSON in an object", "json", '{"cards":[{"front":"Q1","back":"A1"}]}', "not an array"),
    File("a workbook as CSV", "csv", b"PK\x03\x04\x14\x00\x06\x00", "a workbook or another zip archive"),
    File("an old workbook", "csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old workbook (.xls)"),
    File(
        "a page for signing in",
        "csv",
        "<!DOCTYPE html>\n<title>Sign in, please</title>\n",
        "a web page, not a table",
    ),
    File("TextEdit", "txt", "{\\rtf1\\ansi Question, Answer}", "rich text (RTF)"),
    File(
        "Windows paths", "csv", "Question,Answer\nhosts?,C:\\windows\\new\n", ("hosts?", "C:\\windows\\new")
    ),
]


@pytest.mark.parametrize("file", FILES, ids=[file.kind for file in FILES])
def test_a_program_s_file(file: File) -> None:
    """What a program writes is the card that its author sees there, or it is refused with what was seen."""
    content = file.content.encode() if isinstance(file.content, str) else file.content
    if isinstance(file.expected, str):
        with pytest.raises(DeckFileError) as caught:
            pack_deck(content, file.format_)
        assert file.expected in str(caught.value.problems[0])
        return
    card = next(read_cards(content, file.format_)[1])
    assert file.expected == (card.question, card.answer, *([card.category] if card.category else []))


def see(content: str, format_: DeckFormat = "csv", reading: Reading | None = None) -> Seen:
    """What is seen in a file that can be read."""
    return pack_deck(content.encode(), format_, reading or Reading()).seen


def test_what_was_taken_for_what_is_said() -> None:
    """The header as it is written, the first card, what was passed over: nothing is decided in silence."""
    seen = see("Table 1\nID,Front,Back\n7,Q,It is <b>bold</b>\n")
    assert ("comma", ["ID", "Front", "Back"], (3, "Q", "It is <b>bold</b>")) == (
        seen.dialect,
        seen.header,
        seen.first_card,
    )
    assert [
        "Row 1 stands above the header and was passed over: 'Table 1'.",
        "Columns that are no part of a card were passed over: ID.",
        "Row 3, answer: '<b>' was kept as text. If it is HTML, put a line #html:true above the first row.",
    ] == seen.warnings
    assert Seen("comma", None, (1, "Q", "A" * 60 + "…"), []) == see(f"Q,{'A' * 61}\n")


def test_a_caller_may_say_what_the_first_row_is() -> None:
    """A row that looks like a header is a card, or passed over, if the caller says so; nothing is refused then."""
    content = "English,German\nhouse,Haus\n"
    assert (1, "English", "German") == see(content, reading=Reading(header="none")).first_card
    seen = see(content, reading=Reading(header="skip"))
    assert (None, (2, "house", "Haus")) == (seen.header, seen.first_card)
    assert ["Row 1 was passed over as a header: 'English, German'."] == seen.warnings
    assert (1, "Question", "Answer") == see("Question,Answer\n", reading=Reading(header="none")).first_card


def test_a_large_file_is_divided_as_a_small_one() -> None:
    """What is looked at of a file may end within a quoted cell, which is no reason to find no separator."""
    content = "".join(f'Q{number};"one, {number}\ntwo {"x" * 900}"\n' for number in range(100))
    assert "semicolon" == see(content).dialect

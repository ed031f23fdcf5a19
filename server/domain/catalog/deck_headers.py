"""Which columns a table has: what its first row names, and whether that row names anything.

A row that names question and answer is a header. A row of other names is refused: it is a header that names neither.
So is a row that looks like names above rows that look like cards. Everything else is the first card.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from server.domain.catalog.deck_problems import Problems, excerpt

COLUMNS = ("question", "answer", "category", "explanation")
REQUIRED = ("question", "answer")
NAMES_ACCEPTED = (
    "question (front, term, prompt), answer (back, definition), explanation (extra, notes), category (tags)"
)
WAYS_OUT = "header=none if it is a card, header=skip to pass it over"
# A column that is passed over.
PASSED_OVER = "-"
# Names of several words are divided by commas here. They are compared without case, punctuation and word dividers.
_SYNONYMS = {
    "question": (
        "question, questions, question text, front, front side, front text, front of card, card front, term, "
        "terms, prompt, word, words, frage, fragen, fragetext, vorderseite, begriff, wort, recto, terme, mot, "
        "pregunta, preguntas, anverso, término, palabra, domanda, domande, fronte, termine, parola, pergunta, "
        "perguntas, frente, termo, palavra, vraag, vragen, voorkant, woord, fråga, framsida, ord, spørsmål, "
        "spørgsmål, forside, kysymys, pytanie, przód, słowo, otázka, kérdés, întrebare, soru, ön yüz, ερώτηση, "
        "вопрос, слово, термин, питання, سؤال, السؤال, שאלה, प्रश्न, câu hỏi, "
        "pertanyaan, คำถาม, 問題, 質問, 問い, 問, "
        "表, 表面, 単語, 用語, 问题, 問題文, 正面, 单词, 單字, 词语, 질문, 문제, 앞면, 단어"
    ),
    "answer": (
        "answer, answers, answer text, back, back side, back text, back of card, card back, definition, "
        "definitions, meaning, meanings, response, antwort, antworten, rückseite, bedeutung, lösung, réponse, "
        "réponses, verso, définition, sens, signification, respuesta, respuestas, reverso, definición, "
        "significado, risposta, risposte, retro, definizione, significato, resposta, respostas, verso, definição, "
        "antwoord, antwoorden, achterkant, definitie, betekenis, svar, baksida, bagside, bakside, definisjon, "
        "vastaus, odpowiedź, tył, definicja, znaczenie, odpověď, odpoveď, válasz, răspuns, cevap, yanıt, arka "
        "yüz, anlam, απάντηση, ответ, определение, значение, відповідь, جواب, الجواب, إجابة, תשובה, उत्तर, câu "
        "trả lời, trả lời, jawaban, คำตอบ, 答え, 答, 解答, 回答, 裏, 裏面, 意味, 定義, 答案, 背面, 释义, "
        "定义, 意思, 답, 정답, 답변, 뒷면, 뜻"
    ),
    "explanation": (
        "explanation, explanations, extra, note, notes, remark, remarks, comment, comments, erklärung, "
        "erläuterung, bemerkung, anmerkung, notiz, notizen, explication, remarque, explicación, nota, notas, "
        "spiegazione, note aggiuntive, explicação, uitleg, toelichting, opmerking, förklaring, forklaring, "
        "selitys, wyjaśnienie, uwagi, vysvětlení, magyarázat, açıklama, объяснение, пояснение, примечание, 説明, "
        "解説, 備考, 解释, 解析, 说明, 설명, 해설"
    ),
    "category": (
        "category, categories, tag, tags, topic, topics, subject, kategorie, kategorien, thema, themen, "
        "schlagwort, schlagwörter, catégorie, catégories, étiquette, étiquettes, categoría, categorías, etiqueta, "
        "etiquetas, tema, categoria, categorie, etichetta, etichette, onderwerp, kategori, kategoria, aihe, "
        "temat, téma, konu, категория, тема, теги, カテゴリ, カテゴリー, 分類, タグ, 类别, 分类, 标签, "
        "카테고리, 분류, 태그"
    ),
}
# What programs note of a card. It is passed over, and the answer says so.
_OF_PROGRAMS = (
    "id, guid, uuid, nid, cid, note id, card id, deck, deck name, notetype, note type, model, card type, "
    "status, created, created at, created on, created time, created by, date created, modified, modified at, "
    "last modified, date modified, updated, updated at, last updated, last edited, last edited by, last "
    "edited time, edited, due, due date, interval, ease, ease factor, reps, repetitions, lapses, reviews, "
    "review count, last review, last reviewed, next review, starred, flag, index, #, no, nr, number, row, "
    "unnamed 0"
)
# A first row of nothing but such names, also of several words, names columns that are none of ours.
_NO_CARD_NAMES = (
    "acronym abbreviation abkürzung audio bemerkung bild body choice column comment comments concept "
    "content correct count data date datum description beschreibung difficulty example examples beispiel "
    "exemple ejemplo esempio expression fill foreign fremdsprache frequency grammar guid hanzi heading "
    "hint image info input kana kanji kapitel karte keyword label language languages lapses learning "
    "lektion level meaning modified module muttersprache native nummer option order output phonetic "
    "phrase pinyin pronunciation rating reference reply result reverse romaji satz schwierigkeit score "
    "solution spalte speech stufe summary synonym target titel traducción traduction traduzione tradução "
    "transcription translation translations übersetzung value variable vertaling vocab vocabulary "
    "vocabulario vocabulaire vokabel vokabeln zielsprache перевод 例文 発音 読み 拼音 例句"
)
# One of these above a column is a name, whatever is beside it.
_LANGUAGE_NAMES = (
    "english englisch anglais inglés inglese inglês engels engelska angielski английский 英語 英文 영어 "
    "german deutsch allemand alemán tedesco alemão duits tyska niemiecki немецкий ドイツ語 德语 독일어 "
    "french français französisch francés francese francês frans franska francuski французский フランス語 "
    "法语 프랑스어 spanish español spanisch espagnol castellano spagnolo espanhol spaans hiszpański "
    "испанский スペイン語 西班牙语 스페인어 italian italiano italienisch italien itálico włoski "
    "итальянский portuguese português portugiesisch portugais portugués dutch nederlands niederländisch "
    "néerlandais danish dansk dänisch norwegian norsk norwegisch swedish svenska schwedisch finnish "
    "suomi finnisch polish polski polnisch czech čeština tschechisch hungarian magyar ungarisch romanian "
    "română turkish türkçe türkisch greek griechisch ελληνικά russian русский russisch russe ruso "
    "ukrainian українська ukrainisch arabic العربية arabisch hebrew עברית hindi हिन्दी latin latein "
    "latín thai ไทย vietnamese indonesian korean 한국어 koreanisch japanese 日本語 japanisch japonais "
    "chinese 中文 chinesisch mandarin"
)
# These can be cards of a vocabulary, too: only where all of a row are written in one way, as names are.
_PERHAPS_A_CARD_NAMES = (
    "article author book buch card cards chapter class clue code field file group item key lesson line link "
    "list memo mnemonic name option page part picture pos position reading section sentence set side sound "
    "source text theme title type unit url wort wörter zeile"
)
_SENTENCE_ENDS = tuple(".?!…。？！؟:;,")
_MOST_WORDS_OF_A_NAME = 2
_LEAST_WORDS_OF_PROSE = 4
_LONGEST_NAME = 30
_FEWEST_QUESTIONS = 2
_FEWEST_ROWS = 3
_WORDS = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*%?")
_DIVIDERS = re.compile(r"[\s_\-./:;()\[\]*\"'?!\ufeff]+")


def _name(cell: str) -> str:
    """A name as it is compared: case, punctuation and what divides words do not count."""
    return _DIVIDERS.sub(" ", unicodedata.normalize("NFKC", cell[:64]).casefold()).strip()


def _names(listed: str) -> frozenset[str]:
    return frozenset(_name(name) for name in listed.split(","))


_COLUMN_BY_NAME = {name: column for column, listed in _SYNONYMS.items() for name in _names(listed)}
_PROGRAM_NAMES = _names(_OF_PROGRAMS)
_PERHAPS_A_CARD = frozenset(_PERHAPS_A_CARD_NAMES.split())
_LANGUAGES = frozenset(_LANGUAGE_NAMES.split())
_NO_CARD = frozenset(_NO_CARD_NAMES.split()) | _LANGUAGES | _PERHAPS_A_CARD | _PROGRAM_NAMES


def column_of(cell: str) -> str | None:
    """The column that a name of a header stands for; PASSED_OVER for what programs note; None for others."""
    name = _name(cell)
    column = _COLUMN_BY_NAME.get(name)
    if column is None and name:
        # "Question (front)", "Front / Question": each word by itself names the same column.
        columns = {_COLUMN_BY_NAME.get(word) for word in name.split()}
        column = columns.pop() if len(columns) == 1 else None
    return column or (PASSED_OVER if name in _PROGRAM_NAMES else None)


def names_cards(cells: Sequence[str]) -> bool:
    """Whether a row names both columns that each card needs."""
    return {column_of(cell) for cell in cells} >= set(REQUIRED)


def read_header(
    row: int, cells: list[str], special: dict[int, str], problems: Problems
) -> tuple[str, ...] | None:
    """The columns of a header; None if the row is a card. A row that is neither for certain is a problem.

    Args:
        row: its number in the file.
        cells: as they are written.
        special: columns that the file has named by their places, from 1.
        problems: gets what is wrong.
    """
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    names = [special.get(place) or column_of(cell) for place, cell in enumerate(cells, start=1)]
    named = {name for name, cell in zip(names, cells, strict=True) if name == column_of(cell)} - {None}
    if not named >= set(REQUIRED):
        others = [cell for cell, name in zip(cells, names, strict=True) if name in (None, PASSED_OVER)]
        required = named & set(REQUIRED)
        are_names = all(_is_no_card(cell) or (required and _name(cell).isalpha()) for cell in others)
        if (are_names and (required or not _is_perhaps_a_card(cells))) or _names_a_language(cells):
            missing = [name for name in REQUIRED if name not in named]
            problems.add(
                row,
                None,
                f"{excerpt(', '.join(cells))} looks like a header, but has no column {' and no '.join(missing)}",
                f"{NAMES_ACCEPTED}; {WAYS_OUT}",
            )
        return None
    columns: list[str] = []
    for name, cell in zip(names, cells, strict=True):
        if name is None and cell.strip():
            problems.add(row, None, f"unknown column {excerpt(cell.strip())}", NAMES_ACCEPTED)
        elif name not in (None, PASSED_OVER) and name in columns:
            problems.add(row, None, f"column {name!r} twice", "each column once")
        columns.append(name or "")
    return tuple(columns)


def _is_no_card(cell: str) -> bool:
    """Whether a cell of a first row names a column, as it seems: each of its words is one of such names."""
    name = _name(cell)
    if cell.rstrip().endswith(_SENTENCE_ENDS[1:3]):
        return False
    words = [word for word in _WORDS.findall(name) if len(word) > 1]
    return name in _NO_CARD or (
        bool(words) and all(word in _NO_CARD or word in _COLUMN_BY_NAME for word in words)
    )


def _names_a_language(cells: list[str]) -> bool:
    """Whether it is a row of names of which one is that of a language, such as `Lakota`, `English`."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return (
        any(_name(cell) in _LANGUAGES for cell in filled)
        and all(map(_is_like_a_name, filled))
        and _is_one_style(filled)
    )


def _is_perhaps_a_card(cells: list[str]) -> bool:
    """Whether it may be a card of a vocabulary, such as `book`, `Buch`: usual words, which names would not mix so."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return not _is_one_style(filled) and all(_name(cell) in _PERHAPS_A_CARD for cell in filled)


def _is_one_style(cells: Sequence[str]) -> bool:
    """Whether cells begin all with capitals, or all with small letters. Letters without case fit both."""
    return not (any(cell[0].islower() for cell in cells) and any(cell[0].isupper() for cell in cells))


def find_odd_first_row(first: Sequence[str], others: Sequence[Sequence[str]]) -> str | None:
    """What the rows below a first row have that it has not, if that makes it look like names; None if nothing.

    Args:
        first: the cells of the first row, which is no header by its words.
        others: the rows after it, or some dozens of them.
    """
    cells = [cell.strip() for cell in first]
    filled = [cell for cell in cells if cell]
    if not all(map(_is_like_a_name, filled)) or not _is_one_style(filled):
        return None
    for place, cell in enumerate(cells):
        below = [row[place].strip() if place < len(row) else "" for row in others]
        if cell and len(below) >= _FEWEST_ROWS and all(map(_NUMBER.fullmatch, below)):
            return "numbers"
        if place >= len(REQUIRED) or any(len(part.split()) > _MOST_WORDS_OF_A_NAME for part in filled[:2]):
            continue
        if len(below) >= _FEWEST_QUESTIONS and all(text.endswith(("?", "？", "؟")) for text in below):
            return "questions"
        if len(below) >= _FEWEST_ROWS and all(_is_prose(text, cell) for text in below):
            return "sentences"
    return None


def _is_like_a_name(cell: str) -> bool:
    return (
        len(cell) <= _LONGEST_NAME
        and len(cell.split()) <= _MOST_WORDS_OF_A_NAME + 1
        and not cell.endswith(_SENTENCE_ENDS)
        and not any(character.isdigit() for character in cell)
        and cell[:1].isalpha()
    )


def _is_prose(text: str, name: str) -> bool:
    """Whether a text is a sentence, as no name of a column is."""
    return (
        len(text.split()) >= _LEAST_WORDS_OF_PROSE
        or (" " in text and text.endswith(_SENTENCE_ENDS))
        or (not text.isascii() and " " not in text and len(text) >= max(12, 4 * len(name)))
    )


def is_numbered(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first column of three or more does nothing but number the rows."""
    if len(rows) < _FEWEST_ROWS or any(len(row) <= len(REQUIRED) for row in rows):
        return False
    firsts = [row[0].strip() for row in rows]
    if not all(first.isdecimal() and first.isascii() for first in firsts):
        return False
    start = int(firsts[0][:6])
    return firsts == [str(number) for number in range(start, start + len(firsts))]

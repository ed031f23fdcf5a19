"""POST /api/admin/decks/{deckId}/import: files of cards into a deck, all or nothing."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientResponse, FormData

from server.domain.catalog.deck_workbooks import XLSX_TYPE
from server.domain.editing.imports import write_cards
from server.settings import ROOT
from tests.api.admin.test_crud import refusal
from tests.api.conftest import Api, Course

REAL_COURSE = ROOT.parent / "shared" / "data" / "cissp"
SAMPLE_COURSE = ROOT / "config" / "sample-course"
TSV, CSV, JSON = "text/tab-separated-values", "text/csv", "application/json"
MAX_FILE_BYTES = 10 << 20
FORM = "import/form"
CARDS = [{"question": "Sheet?", "answer": "=1+1", "category": None, "explanation": None}]


class Deck:
    """The deck `Law` of the course, which holds the cards l1 and l2, as an administrator fills it."""

    def __init__(self, api: Api, course: Course) -> None:
        self.api = api
        self.id = str(course.decks["Law"])

    async def send(
        self, body: Any, content_type: str = TSV, by: str | None = "admin", path: str = "import"
    ) -> ClientResponse:
        """Send a file."""
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        headers = {"Content-Type": content_type}
        return await self.api.post(f"/api/admin/decks/{self.id}/{path}", by=by, data=data, headers=headers)

    async def load(self, body: bytes, content_type: str = TSV, path: str = "import") -> tuple[int, int, int]:
        """Send a file that must be taken: cards created, updated, unchanged."""
        response = await self.send(body, content_type, path=path)
        assert 200 == response.status, await response.text()
        counts = await response.json()
        assert ["created", "updated", "unchanged", "dialect", "header", "firstCard", "warnings"] == list(
            counts
        )
        return counts["created"], counts["updated"], counts["unchanged"]

    async def cards(self) -> list[dict[str, Any]]:
        """Every card of the deck as administrators see it, up to a hundred of them."""
        page = await self.api.get(
            "/api/admin/flashcards", by="admin", params={"deckId": self.id, "limit": "100"}
        )
        cards: list[dict[str, Any]] = (await page.json())["flashcards"]
        return cards

    async def card(self, question: str) -> dict[str, Any]:
        """One card by its question."""
        (found,) = [card for card in await self.cards() if card["question"] == question]
        return found


@pytest.fixture
def deck(api: Api, course: Course) -> Deck:
    """An empty-handed administrator before the deck `Law`."""
    return Deck(api, course)


FORMATS = {
    "tsv": (
        TSV,
        b"Question\tAnswer\tCategory\tExplanation\nWhat?\tTwo\\nlines\tlaw, basics\tBecause\nWho?\tMe\t\t\n",
    ),
    "csv": (
        CSV,
        b'question,answer,explanation,category\nWhat?,"Two\nlines",Because,"law, basics"\nWho?,Me,,\n',
    ),
    "json": (
        JSON,
        json.dumps(
            [
                {
                    "question": "What?",
                    "answer": "Two\nlines",
                    "explanation": "Because",
                    "category": "law, basics",
                },
                {"question": "Who?", "answer": "Me"},
            ]
        ).encode(),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
async def test_each_format_brings_the_same_cards(deck: Deck, name: str) -> None:
    """Texts, line breaks, categories and the order of the file arrive; the cards are published."""
    content_type, body = FORMATS[name]

    assert (2, 0, 0) == await deck.load(body, content_type)

    what, who = await deck.card("What?"), await deck.card("Who?")
    assert {
        "answer": "Two\nlines", "explanation": "Because", "category": "law, basics", "order": 1, "isPublished": True,
    } == {key: what[key] for key in ("answer", "explanation", "category", "order", "isPublished")}  # fmt: skip
    assert ("Me", None, None, 2) == (who["answer"], who["explanation"], who["category"], who["order"])


@pytest.mark.parametrize("name", FORMATS)
async def test_the_same_file_again_changes_nothing(deck: Deck, name: str) -> None:
    """The second import finds every card unchanged, down to the time of the last change."""
    content_type, body = FORMATS[name]
    await deck.load(body, content_type)
    before = await deck.cards()

    assert (0, 0, 2) == await deck.load(body, content_type)

    assert before == await deck.cards()


async def test_cards_are_known_by_their_question(deck: Deck, course: Course) -> None:
    """A known question gets its new answer and keeps its id; cards that the file does not have stay."""
    counts = await deck.load(b"question l2\tother answer\nquestion l3\tanswer l3\n")

    assert (1, 1, 0) == counts
    updated = await deck.card("question l2")
    assert (str(course.cards["l2"]), "other answer", "explanation l2") == (
        updated["id"], updated["answer"], updated["explanation"]
    )  # fmt: skip
    assert str(course.cards["l1"]) == (await deck.card("question l1"))["id"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (TSV, b"\xef\xbb\xbfquestion\tanswer\nWas?\tM\xc3\xbche\n"),
        (TSV, b"question\tanswer\r\nWas?\tM\xc3\xbche\r\n"),
        (TSV + "; charset=UTF-8", b"question\tanswer\nWas?\tM\xc3\xbche"),
        (TSV + '; charset="iso-8859-1"', b"question\tanswer\nWas?\tM\xfche\n"),
        (CSV + ";charset=windows-1252;header=present", b"question,answer\nWas?,M\xfche\n"),
        (CSV + "; charset=utf-16", "question,answer\nWas?,Mühe\n".encode("utf-16")),
        (CSV, b'\xef\xbb\xbf"question","answer"\r\n"Was?","M\xc3\xbche"\r\n'),
        (JSON + "; charset=utf-8", b'\xef\xbb\xbf[{"question": "Was?", "answer": "M\xc3\xbche"}]'),
        ("TEXT/CSV", b"Was?,M\xc3\xbche\n"),
    ],
)
async def test_encodings_and_line_ends(deck: Deck, content_type: str, body: bytes) -> None:
    """Byte order marks, CRLF and the charset of the Content-Type are understood."""
    assert (1, 0, 0) == await deck.load(body, content_type)

    assert "Mühe" == (await deck.card("Was?"))["answer"]


async def send_with(deck: Deck, query: str, body: bytes, content_type: str = TSV) -> tuple[int, Any]:
    """Send a file with query parameters: the status and the answer."""
    path = f"/api/admin/decks/{deck.id}/import?{query}"
    response = await deck.api.post(path, by="admin", data=body, headers={"Content-Type": content_type})
    return response.status, await response.json()


async def test_a_dry_run_stores_nothing(deck: Deck) -> None:
    """The answer is that of the import, and not a card has changed; the import itself follows as announced."""
    before = await deck.cards()
    status, counts = await send_with(deck, "dryRun=true", b"question l2\tother\nnew\tcard\n")
    assert (200, 1, 1, 0) == (status, counts["created"], counts["updated"], counts["unchanged"])
    assert {
        "dialect": "tab",
        "header": None,
        "firstCard": {"row": 1, "question": "question l2", "answer": "other"},
        "warnings": [],
    } == dict(list(counts.items())[3:])
    assert before == await deck.cards()
    assert (1, 1, 0) == await deck.load(b"question l2\tother\nnew\tcard\n")


def form(*parts: str, boundary: str = "b") -> tuple[bytes, str]:
    """A form of parts, each with its head, and its type."""
    body = "".join(f"--{boundary}\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
    return f"{body}--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


async def test_a_file_may_come_as_a_form(deck: Deck) -> None:
    """As browsers, curl and generated clients upload it: the end of its name says what it is, or its type."""
    named = 'name="file"; filename="deck.{}"\r\nContent-Type: {}\r\n\r\n'
    other = 'name="other"\r\n\r\nx'
    csv = named.format("CSV", "application/vnd.ms-excel") + "Frage;Antwort\r\nWas?;Ein Satz\r\n"
    assert (1, 0, 0) == await deck.load(*form(other, csv), path=FORM)
    typed = named.format("bin", "text/csv; charset=windows-1252") + "Was?,Ein Satz\n"
    assert (0, 0, 1) == await deck.load(*form(typed), path=FORM)
    data = FormData()
    data.add_field("file", write_cards(CARDS, "xlsx"), filename="deck.xlsx")
    response = await deck.api.post(f"/api/admin/decks/{deck.id}/import/form", by="admin", data=data())
    assert (200, "xlsx") == (response.status, (await response.json())["dialect"])


@pytest.mark.parametrize(
    ("parts", "status", "told"),
    [
        ([], 400, "file: Must be one file in the form; there are 0."),
        (['name="other"; filename="a.csv"\r\n\r\nQ,A'], 400, "there are 0"),
        (['name="file"; filename="a.csv"\r\n\r\nQ,A'] * 2, 400, "there are 2"),
        (['name="file"; filename="a.pdf"\r\n\r\nQ,A'], 415, "The file's name must end in .tsv, .csv"),
        (['name="file"\r\n\r\nQ,A'], 415, "The file's name must end in"),
        (['name="file"; filename="a.csv"\r\nContent-Type: x/y; charset=klingon\r\n\r\nQ,A'], 415, "The charset must"),
        (['name="file"; filename="a.csv"\r\n\r\nEnglish,German'], 400, "looks like a header"),
    ],
)  # fmt: skip
async def test_a_form_that_has_no_file(deck: Deck, parts: list[str], status: int, told: str) -> None:
    """What is missing is said; nothing is stored."""
    response = await deck.send(*form(*parts), path=FORM)
    assert status == response.status
    assert told.removeprefix("file: ") in await response.text()


async def test_a_form_is_repeated_with_another_boundary(deck: Deck) -> None:
    """The same file under the same key is the same request, although a form has another boundary each time."""
    path, answers = f"/api/admin/decks/{deck.id}/import/form", []
    for boundary in ("one", "two"):
        body, kind = form('name="file"; filename="a.csv"\r\n\r\nQ,A', boundary=boundary)
        headers = {"Content-Type": kind, "Idempotency-Key": "the same"}
        answers.append(await deck.api.post(path, by="admin", data=body, headers=headers))
    assert [200, 200] == [answer.status for answer in answers]
    assert await answers[0].read() == await answers[1].read()


async def test_parameters_say_what_a_file_leaves_open(deck: Deck) -> None:
    """A dialect decides between two, escapes=none keeps backslashes; other values are refused."""
    body = b"Was ist a, b?;Das\n"
    assert 400 == (await deck.send(body, CSV)).status
    status, counts = await send_with(deck, "dialect=semicolon", body, CSV)
    assert (200, "semicolon") == (status, counts["dialect"])
    assert 200 == (await send_with(deck, "escapes=none", b"Where?\tC:\\new\n"))[0]
    assert 200 == (await send_with(deck, "header=none", b"English\tGerman\n"))[0]
    assert "German" == (await deck.card("English"))["answer"]
    assert ("Das", "C:\\new") == (
        (await deck.card("Was ist a, b?"))["answer"], (await deck.card("Where?"))["answer"]
    )  # fmt: skip
    for query in ("dialect=dot", "escapes=all", "dryRun=1", "header=none"):
        assert 400 == (await send_with(deck, query, body))[0]


@pytest.mark.parametrize(
    "body",
    [pytest.param(b"\tno question\n" * 150, id="150"), pytest.param(b"a\tb\n\tc\nd\te\n", id="one of three")],
)
async def test_one_bad_row_and_nothing_is_imported(deck: Deck, body: bytes) -> None:
    """All or nothing: good rows around a bad one are not imported either; up to 20 problems are listed."""
    before = await deck.cards()

    messages = await refusal(await deck.send(body), 400)

    bad_rows = [number for number, row in enumerate(body.splitlines(), start=1) if row.startswith(b"\t")]
    assert [f"rows.{number}.question" for number in bad_rows[:20]] == list(messages)
    assert {"empty; accepted: 1 to 5000 characters"} == set(messages.values())
    assert before == await deck.cards()


@pytest.mark.parametrize(
    ("content_type", "body", "fields"),
    [
        (TSV, b"question\tanswer\na\tb\tc\n", ["rows.2"]),
        (TSV, b"question\tanswer\na\tb\nc\td\na\te\n", ["rows.4.question"]),
        (TSV, b"a\t" + b"x" * 5001, ["rows.1.answer"]),
        (TSV, b"question\tanswer\texplanation\na\tb\t" + b"x" * 2001, ["rows.2.explanation"]),
        (TSV, b"a\tb\nc\td\0\n", ["rows.2.answer"]),
        (TSV, b"a\tb\nc\t\xff\n", ["rows.2"]),
        (TSV, b"", ["rows.1"]),
        (TSV, b"question\tanswer\n\n", ["rows.1"]),
        (CSV, b'a,"b\n', ["rows.1"]),
        (JSON, b"[{]", ["rows.1"]),
        (JSON, b'{"question": "a", "answer": "b"}', ["rows.1"]),
        (JSON, b'[{"question": "a"}, 5, {"question": 5}]', ["rows.1.answer", "rows.2", "rows.3.question"]),
        (JSON, b'[{"question": "a", "answer": "b", "hint": "c"}]', ["rows.1.hint"]),
        (TSV + "; charset=ascii", b"a\t\xff", []),
    ],
)  # fmt: skip
async def test_bad_files_are_refused_by_row(
    deck: Deck, content_type: str, body: bytes, fields: list[str]
) -> None:
    """Whatever is wrong with a file is said with the row that it is in."""
    response = await deck.send(body, content_type)

    assert fields == list(await refusal(response, 400))
    assert "application/problem+json" == response.content_type


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/html", "multipart/form-data; boundary=x", f"{TSV}; charset=none",
     f"{TSV}; charset=hex", f"{TSV}; charset=idna", f"{TSV}; charset=utf-7", f"{TSV}; charset=\u00e9"],
)  # fmt: skip
async def test_other_types_and_charsets_are_refused(deck: Deck, content_type: str) -> None:
    """415 says which types, or which charsets, are accepted."""
    response = await deck.send(b"a\tb\n", content_type)

    assert 415 == response.status
    assert ("charset must" if TSV in content_type else TSV) in (await response.json())["detail"]


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """A body without a Content-Length."""
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]
        await asyncio.sleep(0)


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
async def test_ten_mebibytes_are_the_limit(deck: Deck, chunked: bool) -> None:
    """10 MiB are taken and one byte more is 413, said beforehand or not."""
    rows = b"".join(b"question %06d\t%s\n" % (number, b"x" * 4000) for number in range(2600))
    body = rows + b"last\t".ljust(MAX_FILE_BYTES - len(rows), b"y")[: MAX_FILE_BYTES - len(rows)]
    body = body if len(body) == MAX_FILE_BYTES else rows[:MAX_FILE_BYTES]

    too_large = await deck.send(in_chunks(body + b"y") if chunked else body + b"y")

    assert 413 == too_large.status
    response = await deck.send(in_chunks(body) if chunked else body)
    problem = await response.json()
    # The last row is too long for a card: the file was read to its end, and judged.
    assert (400, ["rows.2601.answer"]) == (response.status, [error["field"] for error in problem["errors"]])


async def test_compressed_files_count_as_what_they_hold(deck: Deck) -> None:
    """A compressed file is understood; one that holds more than 10 MiB is 413, and one that is broken is 400."""
    headers = {"Content-Type": TSV, "Content-Encoding": "gzip"}
    statuses = []
    for body in (gzip.compress(b"a\tb"), gzip.compress(b"a" * (MAX_FILE_BYTES + 1)), b"broken"):
        path = f"/api/admin/decks/{deck.id}/import"
        response = await deck.api.post(path, by="admin", data=body, headers=headers)
        statuses.append(response.status)

    assert [200, 413, 400] == statuses


async def test_unknown_decks_and_malformed_ids(api: Api, course: Course) -> None:
    """404 for a deck that is not there, whatever the file; 400 for what is no id."""
    headers = {"Content-Type": TSV}
    for target, status in ((uuid4(), 404), ("none", 400)):
        response = await api.post(
            f"/api/admin/decks/{target}/import", by="admin", data=b"\xff", headers=headers
        )
        assert status == response.status
    draft = await api.post(
        f"/api/admin/decks/{course.decks['draft deck']}/import", by="admin", data=b"a\tb", headers=headers
    )
    assert 200 == draft.status


async def test_ten_thousand_cards_leave_the_service_responsive(deck: Deck) -> None:
    """While 10,000 cards are imported, other requests are answered: none waits for the end of it."""
    body = b"".join(
        b"question %d\tanswer %d %s\tcategory\n" % (number, number, b"x" * 600) for number in range(10_000)
    )
    importing = asyncio.create_task(deck.load(body))
    answered = 0
    while not importing.done():
        assert 200 == (await deck.api.get("/livez", by=None)).status
        answered += 1

    assert (10_000, 0, 0) == await importing
    assert answered > 10
    assert (0, 0, 10_000) == await deck.load(body)


@pytest.fixture(
    params=[(SAMPLE_COURSE, 168), (REAL_COURSE, 918)], ids=["the sample course", "the CISSP course"]
)
def course_files(request: pytest.FixtureRequest) -> tuple[list[bytes], int]:
    """The deck files of a whole course, and how many cards it has."""
    tree, cards = request.param
    if not tree.is_dir():
        pytest.skip("this course is not beside the checkout")
    return [file.read_bytes() for file in sorted(tree.rglob("*.tsv"))], cards


async def test_whole_courses(deck: Deck, course_files: tuple[list[bytes], int]) -> None:
    """Every deck file of a course is taken, with each of its rows, and taken again without a change."""
    files, expected = course_files
    total = 0
    for body in files:
        rows = [row for row in body.split(b"\n") if row.strip()]
        cards = len(rows) - rows[0].lower().startswith(b"question\tanswer")
        created, updated, _ = await deck.load(body)
        total += created + updated
        assert cards == sum(await deck.load(body))
        assert (0, 0, cards) == await deck.load(body)

    assert expected == total


@pytest.mark.parametrize("content_type", [TSV, CSV, JSON, XLSX_TYPE])
async def test_an_export_is_imported_unchanged(deck: Deck, content_type: str) -> None:
    """The file that `Accept` asks for changes nothing, although the deck's order does not count from 1."""
    await deck.api.post(
        "/api/admin/flashcards",
        by="admin",
        json={"deckId": deck.id, "question": 'C:\\new "x"', "answer": "a\n\tb", "order": 77},
    )
    before = await deck.cards()
    path = f"/api/admin/decks/{deck.id}/export"
    exported = await deck.api.get(path, by="admin", headers={"Accept": content_type})
    assert (200, content_type) == (exported.status, exported.content_type)
    assert (0, 0, 3) == await deck.load(await exported.read(), content_type)
    assert before == await deck.cards()

"""Imports of the largest files, and of files made to cost: all or nothing, flat in memory, linear in time."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.cli.importing import ImportFailed, import_path
from server.domain.catalog.deck_files import DeckFormat, pack_deck
from server.domain.catalog.deck_problems import MAX_ROWS, DeckFileError, TooManyRows
from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi, run_statement

TYPES: dict[str, str] = {"tsv": "text/tab-separated-values", "csv": "text/csv", "json": "application/json"}
MEBIBYTE = 1 << 20
LARGEST = 10 * MEBIBYTE
QUARTER = LARGEST // 4


def rows(count: int, format_: str = "tsv") -> bytes:
    """A file of so many short cards."""
    numbers = range(1, count + 1)
    if format_ == "json":
        return b"[" + b",\n".join(b'{"question":"q%d","answer":"a"}' % number for number in numbers) + b"]"
    separator = b"\t" if format_ == "tsv" else b","
    return b"".join(b"q%d%sa\n" % (number, separator) for number in numbers)


async def load(api: Api, course: Course, body: bytes, format_: str = "tsv") -> tuple[int, Any]:
    """Import a file into the deck `Law`: the status and the answer, without what was seen in the file."""
    path = f"/api/admin/decks/{course.decks['Law']}/import"
    headers = {"Content-Type": TYPES[format_]}
    response = await api.post(path, by="admin", data=io.BytesIO(body), headers=headers)
    answer = await response.json()
    return response.status, {
        name: answer[name] for name in answer.keys() - {"header", "firstCard", "warnings"}
    }


def cards_of(api: Api, course: Course) -> tuple[int, int]:
    """How many cards the deck `Law` has, and the sum of their places."""
    ((count, places),) = run_statement(
        api.services.settings.database_url,
        "SELECT count(*), sum(sort_order)::bigint FROM flashcards WHERE deck_id = %s",
        str(course.decks["Law"]),
    )
    return count, places


@pytest.mark.long
async def test_share_07_a_hundred_thousand_rows_are_imported_beside_other_requests(
    settings: Settings, start_api: StartApi, course: Course
) -> None:
    """The largest number of rows is taken with the deadline of a query as it is, and others are answered meanwhile."""
    # On a machine that is busy with tests it may take longer than a client would wait.
    api = await start_api(replace(settings, import_timeout_ms=600_000))
    importing = asyncio.create_task(load(api, course, rows(MAX_ROWS)))
    answered = 0
    while not importing.done():
        assert 200 == (await api.get("/livez", by=None)).status
        answered += 1

    assert (200, {"created": MAX_ROWS, "updated": 0, "unchanged": 0, "dialect": "tab"}) == await importing
    assert answered > 100
    # The two cards that were there before stay at their places, 0 and 1.
    assert (MAX_ROWS + 2, MAX_ROWS * (MAX_ROWS + 1) // 2 + 1) == cards_of(api, course)


@pytest.mark.parametrize("format_", TYPES)
async def test_share_07_more_rows_are_413_with_a_code_of_their_own(
    api: Api, course: Course, format_: str
) -> None:
    """One row above the limit: nothing is imported, and the answer says why."""
    status, problem = await load(api, course, rows(MAX_ROWS + 1, format_), format_)

    assert (413, "too_many_rows") == (status, problem["code"])
    assert "100,000 rows" in problem["detail"]
    assert (2, 1) == cards_of(api, course)


async def test_share_07_a_failure_in_the_last_batch_undoes_the_first(api: Api, course: Course) -> None:
    """All or nothing, however many statements it takes."""
    run_statement(
        api.services.settings.database_url,
        "ALTER TABLE flashcards ADD CONSTRAINT flashcards_not_this CHECK (question <> 'q6000')",
    )
    status, _ = await load(api, course, rows(6000))

    assert (400, (2, 1)) == (status, cards_of(api, course))
    status, counts = await load(api, course, rows(5999))
    assert (200, 5999) == (status, counts["created"])


async def test_share_07_batches_merge_as_one_file(api: Api, course: Course) -> None:
    """A second import of 6000 cards finds all of them, moved ones and changed ones too, in whichever batch."""
    assert 200 == (await load(api, course, rows(6000)))[0]
    assert (200, {"created": 0, "updated": 0, "unchanged": 6000, "dialect": "tab"}) == await load(
        api, course, rows(6000)
    )
    lines = rows(6000).splitlines(keepends=True)
    moved = b"".join([lines[5999], *lines[1:5998], b"q5999\tother\n", lines[0]])
    assert (200, {"created": 0, "updated": 3, "unchanged": 5997, "dialect": "tab"}) == await load(
        api, course, moved
    )
    assert (6002, 6000 * 6001 // 2 + 1) == cards_of(api, course)


async def test_share_07_an_import_may_take_longer_than_a_query(
    settings: Settings, start_api: StartApi, course: Course
) -> None:
    """Neither our deadline of a query nor that of the server's session ends a statement of an import."""
    run_statement(
        settings.database_url,
        "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(2.5); RETURN NULL; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON flashcards FOR EACH STATEMENT EXECUTE FUNCTION be_slow()",
    )
    api = await start_api(replace(settings, database_query_timeout_ms=1000))
    assert (200, {"created": 1, "updated": 0, "unchanged": 0, "dialect": "tab"}) == await load(
        api, course, rows(1)
    )
    timeout = run_statement(settings.database_url, "SELECT current_setting('statement_timeout')")
    assert [("0",)] == timeout, "no other session has it"


async def test_share_07_an_import_that_takes_too_long_is_undone(
    settings: Settings, start_api: StartApi, course: Course
) -> None:
    """Its own deadline has its own answer, which says that nothing was imported."""
    run_statement(
        settings.database_url,
        "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON flashcards FOR EACH STATEMENT EXECUTE FUNCTION be_slow()",
    )
    api = await start_api(replace(settings, import_timeout_ms=300))
    status, problem = await load(api, course, rows(3))

    assert (503, "import_timed_out") == (status, problem["code"])
    assert (2, 1) == cards_of(api, course)


def many(piece: bytes, opening: bytes = b"", closing: bytes = b"", size: int = LARGEST) -> bytes:
    """10 MiB of the same, or another size."""
    return opening + piece * ((size - len(opening) - len(closing)) // len(piece)) + closing


def with_emoji(size: int) -> bytes:
    """So many bytes of rows in which one character takes four of them."""
    row = b"%d \xf0\x9f\x98\x80 %s\tb\n"
    return b"".join(row % (n, b"x" * 4000) for n in range(size * 2600 // LARGEST))


CARD = b"What is this?\tA card\n"
HOSTILE: dict[str, tuple[DeckFormat, Callable[[], bytes]]] = {
    "tiny rows": ("tsv", lambda: many(b"a\tb\n", size=QUARTER)),
    "newlines": ("tsv", lambda: many(b"\n", closing=CARD, size=MEBIBYTE)),
    "newlines in CSV": ("csv", lambda: many(b"\n", closing=b"q,a\n")[-MEBIBYTE // 2 :]),
    "tabs": ("tsv", lambda: many(b"\t")),
    "commas": ("csv", lambda: many(b",")),
    "one line": ("tsv", lambda: many("ä".encode(), closing="\N{GRINNING FACE}".encode())),
    "an open quote": ("csv", lambda: many(b"x\n", opening=b'q,"')),
    "quoted line breaks": ("csv", lambda: many(b'"\n",')[-MEBIBYTE:]),
    "zeros": ("json", lambda: many(b"0,", b"[", b"0]")),
    "empty objects": ("json", lambda: many(b"{},", b"[", b"{}]", size=QUARTER)),
    "unknown fields": ("json", lambda: many(b'"":0,', b"[{", b'"a":0}]')),
    "deep lists": ("json", lambda: many(b"[")),
    "deep objects": ("json", lambda: many(b'{"question":', b"[")),
    "spaces": ("json", lambda: many(b" ", b"[", b"]")),
    "a long text": ("json", lambda: many(b"x", b'[{"question":"', b'"}]')),
    "digits": ("json", lambda: many(b"9", b"[", b"]")),
    "rows with an emoji": ("tsv", lambda: with_emoji(QUARTER)),
}


# The same as large as they may be: to follow every allocation of them takes seconds.
LARGE: dict[str, tuple[DeckFormat, Callable[[], bytes]]] = {
    "tiny rows": ("tsv", lambda: many(b"a\tb\n")),
    "newlines": ("tsv", lambda: many(b"\n", closing=CARD)),
    "empty objects": ("json", lambda: many(b"{},", b"[", b"{}]")),
    "rows with an emoji": ("tsv", lambda: with_emoji(LARGEST)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_share_07_reading_a_file_takes_little_memory(name: str) -> None:
    """Whatever it holds: beside it less than 30 MiB are in use at any moment, or six times its size."""
    read_in_little_memory(*HOSTILE[name])


@pytest.mark.long
@pytest.mark.parametrize("name", LARGE)
def test_share_07_reading_ten_mebibytes_takes_little_memory(name: str) -> None:
    """The same of those files that the test above makes smaller."""
    read_in_little_memory(*LARGE[name])


def read_in_little_memory(format_: DeckFormat, make: Callable[[], bytes]) -> None:
    """Read a file as an import does, whether it is taken or refused, and look at the memory."""
    content = make()
    tracemalloc.start()
    try:
        with suppress(DeckFileError, TooManyRows):
            pack_deck(content, format_)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < max(6 * len(content), 30 * MEBIBYTE) + MEBIBYTE


def steps_of(content: bytes, format_: DeckFormat) -> int:
    """How many calls of Python and C functions it takes to read a file."""
    steps = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal steps
        steps += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        pack_deck(content, format_)
    finally:
        sys.setprofile(before)
    return steps


def test_share_07_empty_lines_cost_no_steps() -> None:
    """10 MiB of newlines and one card are read in pieces, of which there are few."""
    assert steps_of(many(b"\n", closing=CARD), "tsv") < 2000


@pytest.mark.parametrize("format_", ["tsv", "csv", "json"])
def test_share_07_twice_the_rows_are_twice_the_steps(format_: DeckFormat) -> None:
    """The steps grow with the rows and not with their square."""
    small, large = (steps_of(rows(count, format_), format_) for count in (4000, 8000))
    assert large < 2.2 * small


def windows() -> Iterator[tuple[int, bytes]]:
    """JSON decks whose objects end at every place around the end of a piece."""
    for shift in range(-40, 40):
        space = b" " * ((1 << 18) - 1000 + shift)
        yield (
            shift,
            b"["
            + space
            + b",\n".join([b'{"question":"q%d","answer":"\\u00e4\\n"}' % n for n in range(60)])
            + b"]\n",
        )


def test_share_07_an_object_of_json_may_lie_on_the_edge_of_a_piece() -> None:
    """Wherever a piece ends, every card is read, and a mistake is found at its line."""
    for _, content in windows():
        (batch,) = pack_deck(content, "json").batches
        assert 60 == batch.count
        with pytest.raises(DeckFileError) as caught:
            pack_deck(content + b"x", "json")
        (problem,) = caught.value.problems
        assert (61, "not JSON: there is more after the array, column 1 of the line") == (
            problem.row, problem.problem
        )  # fmt: skip


def test_share_07_the_command_line_has_the_same_limit(database_url: str, tmp_path: Path) -> None:
    """A file with more rows is refused by name; one of several batches is imported, and found again."""
    folder = tmp_path / "1. Class"
    folder.mkdir()
    file = folder / "1. Deck.tsv"
    file.write_bytes(rows(MAX_ROWS + 1))
    with pytest.raises(ImportFailed, match=r"1\. Deck\.tsv: An import takes at most 100,000 rows"):
        import_path(database_url, tmp_path)
    file.write_bytes(rows(6000))
    first, second = import_path(database_url, tmp_path), import_path(database_url, tmp_path)
    assert [(6000, 0), (0, 6000)] == [(report.created, report.unchanged) for report in (first, second)]


@pytest.mark.parametrize("text", ["a\\u0000b", "a\\u001bb"])
def test_share_15_the_command_line_refuses_control_characters_too(
    database_url: str, tmp_path: Path, text: str
) -> None:
    """In the texts of a class and in the name of a file: a line for each, and nothing is imported."""
    (tmp_path / "class.toml").write_text(f'description = "{text}"\n')
    for name in (b"bad \xff.tsv", b"worse \x1b.tsv"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(rows(1))
    with pytest.raises(ImportFailed) as caught:
        import_path(database_url, tmp_path)
    places = {line.rpartition("control character ")[2] for line in str(caught.value).split("\n")[1:]}
    assert {"U+DCFF", "U+001B"} <= places
    assert 3 == str(caught.value).count("control character")
    str(caught.value).encode()

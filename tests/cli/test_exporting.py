"""Exporting: the course as a tree of deck files, which an import finds unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.cli.exporting import ExportFailed, export_course
from server.cli.importing import ImportFailed, ImportReport, import_path
from server.domain.catalog.deck_files import DeckFormat
from tests.api.conftest import run_statement
from tests.cli.test_importing import CARDS, SAMPLE, count
from tests.stores.postgres.databases import ask

NAMES = [
    "Risk", "risk", "BCP/DR", "a/b", "..", "con", "C++ & C#", "01 Numbered", "lower case", "Ünïcode", "漢" * 255,
    "x" * 255, 'quoted "name"', "back\\slash", "new\nline", "tab\there", "-", "🎓", "README",
    "name.with.dots", "# hash",
]  # fmt: skip
FRAMES = """
    SELECT c.name, c.description, c.icon, c.color, c.sort_order, d.name, d.sort_order
      FROM classes c JOIN decks d ON d.class_id = c.id ORDER BY c.name COLLATE "C", d.name COLLATE "C"
"""


def fill(url: str) -> None:
    """Classes and decks with all the names, each deck with a card; one with a number that no file's name has."""
    run_statement(
        url,
        "INSERT INTO classes (name, sort_order, description, icon)"
        " SELECT name, mod(n, 3), name, '★' FROM unnest(%s::text[]) WITH ORDINALITY AS names (name, n)",
        NAMES,
    )
    run_statement(
        url,
        "INSERT INTO decks (class_id, name, sort_order)"
        " SELECT c.id, names.name, CASE WHEN n = 1 THEN 2000000 ELSE mod(n, 4) END FROM classes AS c,"
        " unnest(%s::text[]) WITH ORDINALITY AS names (name, n) WHERE c.sort_order = 0",
        NAMES,
    )
    run_statement(
        url, "INSERT INTO decks (class_id, name) SELECT id, 'Only' FROM classes WHERE sort_order > 0"
    )
    run_statement(
        url,
        "INSERT INTO flashcards (deck_id, question, answer, category)"
        " SELECT id, E'what\\t\"is\"\\n' || name, E'\\\\n, =1+1', 'tag,two' FROM decks",
    )


@pytest.mark.parametrize("format_", ["tsv", "csv", "json", "xlsx"])
def test_what_is_exported_is_imported_as_unchanged(
    database_url: str, tmp_path: Path, format_: DeckFormat
) -> None:
    """Whatever classes and decks are called, and whichever the format is: nothing is made and nothing changes."""
    fill(database_url)
    cards = ask(database_url, "SELECT count(*) FROM flashcards")[0][0]
    before = ask(database_url, FRAMES)
    report = export_course(database_url, tmp_path / "course", format_)
    assert ([], cards) == (report.warnings, report.cards)
    assert (0, 0, cards) == count(import_path(database_url, tmp_path / "course"))
    assert before == ask(database_url, FRAMES)


def test_a_course_moves_to_another_database(database_url: str, tmp_path: Path) -> None:
    """Exported, emptied and imported again, it is the same course."""
    import_path(database_url, SAMPLE)
    before: list[Any] = ask(database_url, CARDS)
    report = export_course(database_url, tmp_path / "course")
    assert (8, 24, 168) == (report.classes, report.decks, report.cards)
    run_statement(database_url, "DELETE FROM classes")
    assert ImportReport(8, 24, 168, 0, 0, ()) == import_path(database_url, tmp_path / "course")
    assert before == ask(database_url, CARDS)
    one = export_course(database_url, tmp_path / "one", class_name=before[0][0])
    assert (1, 3) == (one.classes, one.decks)


def test_what_an_import_would_refuse_is_reported(database_url: str, tmp_path: Path) -> None:
    """Twins and decks without cards are named; everything else is written all the same."""
    for statement in (
        "INSERT INTO classes (name) VALUES ('Twin'), ('Twin')",
        "INSERT INTO decks (class_id, name) SELECT id, 'Deck' FROM classes, generate_series(1, 2)",
        "INSERT INTO decks (class_id, name) SELECT id, 'Empty' FROM classes",
        "INSERT INTO flashcards (deck_id, question, answer) SELECT id, 'Q', 'A' FROM decks WHERE name = 'Deck'",
        "INSERT INTO flashcards (deck_id, question, answer) SELECT deck_id, question, answer FROM flashcards",
    ):
        run_statement(database_url, statement)
    report = export_course(database_url, tmp_path)
    assert (2, 4, 8) == (report.classes, report.decks, report.cards)
    said = "\n".join(report.warnings)
    for words in (
        "two classes are named 'Twin'",
        "two decks of 'Twin' are named 'Deck'",
        "share a question",
        "is left out",
    ):
        assert words in said
    with pytest.raises(ImportFailed):
        import_path(database_url, tmp_path)


def test_nothing_is_overwritten(database_url: str, tmp_path: Path) -> None:
    """A folder with something in it, and a file, stay as they are; an unknown class is reported."""
    import_path(database_url, SAMPLE)
    (tmp_path / "mine").write_text("something")
    for path in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ExportFailed, match="is there already"):
            export_course(database_url, path)
    assert ["mine"] == [path.name for path in tmp_path.iterdir()]
    with pytest.raises(ExportFailed, match="no class to export"):
        export_course(database_url, tmp_path / "new", class_name="Nobody's")
    assert not (tmp_path / "new").exists()

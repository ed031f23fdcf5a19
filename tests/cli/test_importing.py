"""Importing: a file or a tree into classes, decks and cards, all or nothing, as often as one likes."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.cli.importing import ImportFailed, ImportOptions, ImportReport, import_path
from server.development import free_port
from server.domain.catalog.deck_files import Reading
from tests.stores.postgres.databases import ask

SAMPLE = Path(__file__).resolve().parents[2] / "config" / "sample-course"
CARDS = """
    SELECT c.name, d.name, f.question, f.answer, f.explanation, f.category, f.sort_order
      FROM classes c JOIN decks d ON d.class_id = c.id JOIN flashcards f ON f.deck_id = d.id
     WHERE c.is_published AND d.is_published AND f.is_published
     ORDER BY c.sort_order, c.name, d.sort_order, d.name, f.sort_order
"""


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def count(report: ImportReport) -> tuple[int, int, int]:
    return report.created, report.updated, report.unchanged


def test_a_tree_becomes_classes_and_decks(database_url: str, tmp_path: Path) -> None:
    """A folder is a class, a file a deck, in the order of their numbers, all published; the rest is skipped."""
    write(tmp_path / "02-asset-security" / "gdpr.csv", "question,answer,explanation\nQ3,A3,E3\n")
    write(tmp_path / "01-risk" / "02-bcp-dr.tsv", "Q2\tA\\n2\tC2\n")
    write(tmp_path / "01-risk" / "01-ethics.json", '[{"question": "Q1", "answer": "A1"}]')
    write(tmp_path / "01-risk" / "ethics.quiz.json", "[]")
    write(tmp_path / "01-risk" / ".git" / "deck.tsv", "hidden\tfile")
    write(tmp_path / "README.md", "About")
    report = import_path(database_url, tmp_path)
    assert ImportReport(2, 3, 3, 0, 0, ("01-risk/ethics.quiz.json", "README.md")) == report
    assert [
        ("Risk", "Ethics", "Q1", "A1", None, None, 1),
        ("Risk", "BCP/DR", "Q2", "A\n2", None, "C2", 1),
        ("Asset Security", "GDPR", "Q3", "A3", "E3", None, 1),
    ] == ask(database_url, CARDS)


def test_a_single_file_belongs_to_the_class_of_its_folder(database_url: str, tmp_path: Path) -> None:
    """A file by itself is a deck of the class that its folder names; its neighbours are left alone."""
    file = write(tmp_path / "03-biology" / "cells.tsv", "Q\tA\n")
    write(tmp_path / "03-biology" / "genes.tsv", "R\tB\n")
    assert ImportReport(1, 1, 1, 0, 0, ()) == import_path(database_url, file)
    assert [("Biology", "Cells", "Q", "A", None, None, 1)] == ask(database_url, CARDS)


def test_the_sample_course_twice_is_once(database_url: str) -> None:
    """The second import of the same tree finds every card unchanged, and writes nothing."""
    first = import_path(database_url, SAMPLE)
    assert (8, 24, 168) == (first.classes, first.decks, first.created)
    before = ask(database_url, "SELECT id, xmin FROM flashcards ORDER BY id")
    assert (0, 0, 168) == count(import_path(database_url, SAMPLE))
    assert before == ask(database_url, "SELECT id, xmin FROM flashcards ORDER BY id")


def test_changes_are_merged_by_question(database_url: str, tmp_path: Path) -> None:
    """New, changed and unchanged cards are counted; a card that left the file, and its progress, stay."""
    file = write(
        tmp_path / "math" / "sums.tsv", "question\tanswer\texplanation\n1+1\t2\tEasy.\n1+2\t3\t\n1+3\t4\t\n"
    )
    import_path(database_url, file)
    write(file, "question\tanswer\n1+1\t2\n1+2\tthree\n1+4\t5\n")
    assert (1, 1, 1) == count(import_path(database_url, file))
    answers = "SELECT question, answer, explanation FROM flashcards ORDER BY question"
    assert [
        ("1+1", "2", "Easy."),
        ("1+2", "three", None),
        ("1+3", "4", None),
        ("1+4", "5", None),
    ] == ask(database_url, answers)


def test_what_an_admin_withdrew_stays_withdrawn(database_url: str, tmp_path: Path) -> None:
    """Importing publishes what is new, and leaves alone what somebody took back."""
    file = write(tmp_path / "math" / "sums.tsv", "1+1\t2\n")
    import_path(database_url, file)
    for table in ("classes", "decks", "flashcards"):
        ask(database_url, f"UPDATE {table} SET is_published = false")  # noqa: S608 - names of ours
    assert (0, 0, 1) == count(import_path(database_url, file))
    assert [] == ask(database_url, CARDS)


def test_one_bad_file_keeps_everything_out(database_url: str, tmp_path: Path) -> None:
    """Every problem of every file is told with its file and row, and not one card arrives."""
    write(tmp_path / "a" / "good.tsv", "Q\tA\n")
    write(tmp_path / "b" / "bad.tsv", "Q\tA\nR\t\n")
    write(tmp_path / "b" / "worse.json", "{}")
    with pytest.raises(ImportFailed) as caught:
        import_path(database_url, tmp_path)
    first, *problems = str(caught.value).split("\n")
    assert "nothing was imported:" == first
    assert "b/bad.tsv: row 2, answer: empty; accepted: 1 to 5000 characters" == problems[0]
    assert problems[1].startswith("b/worse.json: row 1: not an array;")
    assert [(0,)] == ask(database_url, "SELECT count(*) FROM classes")


def test_a_failure_of_the_database_keeps_everything_out(database_url: str, tmp_path: Path) -> None:
    """An error in the last deck undoes the first: it is all one transaction."""
    write(tmp_path / "a" / "first.tsv", "Q\tA\n")
    write(tmp_path / "b" / "last.tsv", "poison\tA\n")
    ask(database_url, "ALTER TABLE flashcards ADD CHECK (question <> 'poison')")
    with pytest.raises(ImportFailed, match=r"nothing was imported: new row .* violates check constraint"):
        import_path(database_url, tmp_path)
    assert [(0,)] == ask(database_url, "SELECT count(*) FROM classes")


def test_a_class_file_describes_its_class(database_url: str, tmp_path: Path) -> None:
    """class.toml names, describes and decorates; what it leaves out stays as it is."""
    write(tmp_path / "01-bio" / "cells.tsv", "Q\tA\n")
    about = write(tmp_path / "01-bio" / "class.toml", 'name = "Biology"\nicon = "leaf"\ncolor = "#0a0"\n')
    assert () == import_path(database_url, tmp_path).skipped
    write(about, 'name = "Biology"\ndescription = "Life."\n')
    import_path(database_url, tmp_path)
    rows = ask(database_url, "SELECT name, description, icon, color, sort_order FROM classes")
    assert [("Biology", "Life.", "leaf", "#0a0", 1)] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [("name = ", "not TOML"), ('colour = "red"', "colour is not accepted; accepted: name")],
)
def test_a_class_file_is_checked(database_url: str, tmp_path: Path, content: str, message: str) -> None:
    """A class.toml with a mistake is told, not ignored."""
    write(tmp_path / "bio" / "cells.tsv", "Q\tA\n")
    write(tmp_path / "bio" / "class.toml", content)
    with pytest.raises(ImportFailed, match=message):
        import_path(database_url, tmp_path)


def test_a_name_is_as_long_as_the_api_takes_it(database_url: str, tmp_path: Path) -> None:
    """A class of 255 characters is imported, one of 256 is refused."""
    write(tmp_path / "long" / "cells.tsv", "Q\tA\n")
    about = write(tmp_path / "long" / "class.toml", f'name = "{"x" * 256}"')
    with pytest.raises(ImportFailed, match="its name needs 1 to 255 characters"):
        import_path(database_url, tmp_path)
    write(about, f'name = "{"x" * 255}"')
    import_path(database_url, tmp_path)
    assert [(255,)] == ask(database_url, "SELECT length(name) FROM classes")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["a/risk.tsv", "a/risk.csv"], "a/risk.csv and a/risk.tsv are both named 'Risk'"),
        (["01-a/x.tsv", "02-a/y.tsv"], "01-a and 02-a are both named 'A'"),
        (["a/-.tsv"], "its name needs 1 to 255 characters"),
        (["a/notes.md"], "there is no deck file"),
    ],
)
def test_names_have_to_be_told_apart(
    database_url: str, tmp_path: Path, paths: list[str], message: str
) -> None:
    """Two files for one deck, two folders for one class, no name at all, or no deck file are refused."""
    for path in paths:
        write(tmp_path / path, "Q,A" if path.endswith(".csv") else "Q\tA")
    with pytest.raises(ImportFailed, match=message):
        import_path(database_url, tmp_path)


def test_two_imports_at_once_make_one(database_url: str) -> None:
    """The second of two parallel imports waits for the first, and finds everything there."""
    reports: list[ImportReport] = []
    threads = [
        threading.Thread(target=lambda: reports.append(import_path(database_url, SAMPLE))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(0, 0, 168), (0, 0, 168), (168, 0, 0)] == sorted(count(report) for report in reports)
    assert [(168,)] == ask(database_url, "SELECT count(*) FROM flashcards")


def test_a_path_or_a_database_that_is_not_there_is_told(database_url: str, tmp_path: Path) -> None:
    """A wrong path and a database that is away are a sentence each, without a password."""
    with pytest.raises(ImportFailed, match="there is no such file"):
        import_path(database_url, tmp_path / "nowhere")
    write(tmp_path / "a" / "b.tsv", "Q\tA")
    with pytest.raises(ImportFailed, match="refused") as caught:
        import_path(f"postgresql://mastery:hunter2@127.0.0.1:{free_port()}/x", tmp_path)
    assert "hunter2" not in str(caught.value)


def test_progress_is_a_bar_or_a_line(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal there is a bar on standard error, elsewhere none; the log has one line in both cases."""
    file = write(tmp_path / "a" / "b.tsv", "Q\tA")
    with capture_logs() as logs:
        import_path(database_url, file, progress=True)
        assert "0/1 [" in capsys.readouterr().err
        import_path(database_url, file)
        assert "" == capsys.readouterr().err
    expected = {"event": "import.finished", "log_level": "info", "classes": 1, "decks": 1}
    expected |= {"created": 1, "updated": 0, "unchanged": 0, "skipped_files": 0}
    assert [expected, expected | {"created": 0, "unchanged": 1}] == logs


@pytest.mark.skipif("MASTERY_COURSE" not in os.environ, reason="MASTERY_COURSE names no folder of decks")
def test_a_course_of_ones_own_twice_is_once(database_url: str, tmp_path: Path) -> None:
    """Any real tree that MASTERY_COURSE names loads in one go, and a second time without a change."""
    shutil.copytree(os.environ["MASTERY_COURSE"], tmp_path / "course")
    first = import_path(database_url, tmp_path / "course")
    assert (0, 0, first.created) == count(import_path(database_url, tmp_path / "course"))


def test_a_bad_file_is_named_once(database_url: str, tmp_path: Path) -> None:
    """Of several bad files each has one line with the number of its problems; a single one lists twenty of them."""
    write(tmp_path / "b" / "bad.tsv", "Q\t\n" * 1790)
    write(tmp_path / "b" / "worse.tsv", "Q\t\n" * 3)
    with pytest.raises(ImportFailed) as caught:
        import_path(database_url, tmp_path)
    _, *problems = str(caught.value).split("\n")
    first = "problems, the first in row 1, answer"
    assert [f"b/bad.tsv: 1,790 {first}", f"b/worse.tsv: 3 {first}"] == [
        problem.partition(": empty")[0] for problem in problems
    ]
    (tmp_path / "b" / "worse.tsv").unlink()
    with pytest.raises(ImportFailed) as caught:
        import_path(database_url, tmp_path)
    _, head, *listed, last = str(caught.value).split("\n")
    assert ("b/bad.tsv: 1,790 problems:", 20, "  … and 1,770 more") == (head, len(listed), last)


def test_a_dry_run_stores_nothing(database_url: str, tmp_path: Path) -> None:
    """It counts what an import would do, and leaves no class, deck or card; no reader has to be reported to."""
    write(tmp_path / "a" / "b.tsv", "Q\tA\nR\tB\n")
    report = import_path(database_url, tmp_path, ImportOptions(is_dry_run=True))
    assert ((2, 0, 0), frozenset()) == (count(report), report.stale)
    assert [(0, 0)] == ask(
        database_url, "SELECT (SELECT count(*) FROM classes), (SELECT count(*) FROM flashcards)"
    )


def test_a_class_may_be_named_and_stay_a_draft(database_url: str, tmp_path: Path) -> None:
    """All files go into the class that is named, and nothing new is published; text files are decks by their tabs."""
    write(tmp_path / "a" / "one.tsv", "Q\tA\n")
    write(tmp_path / "b" / "two.txt", "#separator:tab\n#html:false\nQ\tA\n")
    write(tmp_path / "b" / "readme.txt", "About these files\n")
    report = import_path(database_url, tmp_path, ImportOptions(class_name="Law", is_draft=True))
    assert (1, 2, ("b/readme.txt",)) == (report.classes, report.decks, report.skipped)
    rows = ask(
        database_url,
        "SELECT c.name, d.name, c.is_published OR d.is_published OR f.is_published FROM classes c "
        "JOIN decks d ON d.class_id = c.id JOIN flashcards f ON f.deck_id = d.id ORDER BY d.name",
    )
    assert [("Law", "One", False), ("Law", "Two", False)] == rows


def test_charset_dialect_and_escapes_are_taken(database_url: str, tmp_path: Path) -> None:
    """What a file does not say itself can be said; without it the file is refused."""
    (tmp_path / "one.csv").write_bytes("Schlüssel, wozu?;C:\\neu\n".encode("cp1252"))
    with pytest.raises(ImportFailed, match="is not UTF-8"):
        import_path(database_url, tmp_path)
    with pytest.raises(ImportFailed, match="comma and semicolon would both divide"):
        import_path(database_url, tmp_path, ImportOptions(reading=Reading("cp1252")))
    import_path(database_url, tmp_path, ImportOptions(reading=Reading("cp1252", "semicolon", escapes=False)))
    assert [("Schlüssel, wozu?", "C:\\neu")] == ask(database_url, "SELECT question, answer FROM flashcards")

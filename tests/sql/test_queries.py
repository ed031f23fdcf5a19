"""The files of sql/queries: each explains itself, is used, and fits the schema."""

from __future__ import annotations

import ast
import re
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from server.stores.postgres.queries import QUERIES_FOLDER, load_queries

ROOT = Path(__file__).resolve().parents[2]
QUERIES = load_queries()
RUN_BY = {"fetch_all", "fetch_one", "execute"}
RUN_ON = {"database", "transaction"}


def header_of(name: str) -> str:
    """The comment lines that a file begins with, as one text."""
    (path,) = QUERIES_FOLDER.rglob(f"{name}.sql")
    text = path.read_text()
    lines = re.match(r"(?:--[^\n]*\n)*", text)
    return " ".join(line.removeprefix("--").strip() for line in lines[0].splitlines()) if lines else ""


def names_in_calls() -> set[str]:
    """Every text that the code hands to a database or a transaction as the name of a query."""
    found = set()
    for file in (ROOT / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
                receiver = ast.unparse(node.func.value).rpartition(".")[2].lstrip("_")
                if node.func.attr in RUN_BY and receiver in RUN_ON:
                    found |= _texts(node.args[0])
    return found


def texts_in_code() -> set[str]:
    """Every text of the code, for queries whose name is chosen from a table."""
    return set().union(*(_texts(ast.parse(file.read_text())) for file in (ROOT / "server").rglob("*.py")))


def _texts(tree: ast.AST) -> set[str]:
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_says_what_it_does_and_takes(name: str) -> None:
    """The first comment is a sentence, and names every parameter."""
    header = header_of(name)
    assert re.match(r"[A-Z].+[.?]", header)
    missing = {
        parameter for parameter in QUERIES[name].parameters if not re.search(rf"\b{parameter}\b", header)
    }
    assert set() == missing


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_verb_and_object(name: str) -> None:
    """A name is what a function would be called: words with underscores."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)


def test_every_query_is_in_the_folder_of_a_capability() -> None:
    """Folders are one deep, and no query lies beside them."""
    found = {path.relative_to(QUERIES_FOLDER).parent.as_posix() for path in QUERIES_FOLDER.rglob("*.sql")}
    assert {"catalog", "editing", "identity", "operations", "study", "writing"} == found


def test_every_query_is_used() -> None:
    """A file that no code names is dead, and is to be deleted."""
    assert set() == QUERIES.keys() - texts_in_code()


def test_every_name_in_the_code_has_its_file() -> None:
    """A query's name that has no file would be a KeyError in production."""
    named = names_in_calls()
    assert "find_user" in named, "the calls are found at all"
    assert set() == named - QUERIES.keys()


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_fits_the_schema(busy_url: str, name: str) -> None:
    """PostgreSQL can plan it: its tables, columns and types exist. Parameters are null here."""
    with closing(psycopg2.connect(busy_url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {QUERIES[name].sql}", dict.fromkeys(QUERIES[name].parameters))
        assert cursor.fetchall()

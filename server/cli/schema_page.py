"""`python -m server schema`: the schema of a database on one page, as SQL, in an order that depends on nothing else.

It is read from the catalogs, as PostgreSQL itself describes what it has, and the comments are those of `COMMENT ON`.
sql/schema.sql is such a page, of a database that has the migrations and nothing else. The tests compare the two.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from psycopg2.extras import RealDictCursor

from server.cli.database import connected
from server.errors import CommandError
from server.stores.postgres.queries import load_queries

_WIDTH = 120
_HEAD = """\
-- The whole schema, for reading: what the migrations (sql/migrations/) come to. Made by `make schema`, never by hand.
-- A database is made by `python -m server migrate`; `python -m server schema` prints its page, which then is this one.
"""
_RULE = f"-- {'=' * 77}"
# The form in which PostgreSQL writes values, whatever is set for the role.
_SAME_FORM = "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres'"

_Row = Mapping[str, Any]


def read_schema(url: str) -> str:
    """The page of a database: tables with their indexes, then functions with the triggers that run them.

    Args:
        url: the database; its schema is the first of `search_path`.

    Raises:
        CommandError: the database can't be read.
    """
    with connected(url, failed="the schema was not read") as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute(_SAME_FORM)
            return "".join(_page(cursor))


def _page(cursor: RealDictCursor) -> Iterator[str]:
    queries = load_queries()

    def run(query: str) -> Sequence[_Row]:
        cursor.execute(queries[query].sql)
        return cursor.fetchall()

    yield _HEAD
    yield f"\n{_RULE}\n-- Tables and their indexes\n{_RULE}\n"
    columns, constraints, indexes = (
        _grouped(run(query), by="table_name")
        for query in ("describe_columns", "describe_constraints", "describe_indexes")
    )
    tables = {row["name"]: row for row in run("describe_tables")}
    for name in _in_order(tables, constraints):
        yield f"\n{_comment(tables[name])}{_table(tables[name], columns[name], constraints[name])}"
        for index in indexes[name]:
            yield f"{_comment(index)}{index['definition'].replace(' USING btree ', ' ', 1)};\n"
    yield f"\n{_RULE}\n-- Functions, and the triggers that run them\n{_RULE}\n"
    # In this order a function may call a later one.
    yield "\nSET check_function_bodies = off;\n"
    triggers = _grouped(run("describe_triggers"), by="function_name")
    for function in run("describe_functions"):
        yield f"\n{_comment(function)}{function['definition'].rstrip()};\n"
        for trigger in triggers[function["name"]]:
            definition = trigger["definition"].replace(" FOR EACH ", "\n    FOR EACH ", 1)
            yield f"{_comment(trigger)}{definition};\n"
    others = [f"-- Not shown: {row['kind']} {row['name']}\n" for row in run("list_other_objects")]
    if others:
        yield "\n" + "".join(others)


def _grouped(rows: Iterable[_Row], *, by: str) -> Mapping[str, list[_Row]]:
    groups: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row[by]].append(row)
    return groups


def _in_order(tables: Iterable[str], constraints: Mapping[str, list[_Row]]) -> Iterator[str]:
    """Each table after those that it refers to, otherwise by name."""
    sorter = TopologicalSorter(
        {name: {row["referenced_table"] for row in constraints[name]} - {None, name} for name in tables}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        raise CommandError(f"these tables refer to each other: {', '.join(error.args[1])}") from None
    waiting: set[str] = set()
    while sorter.is_active():
        waiting |= set(sorter.get_ready())
        first = min(waiting)
        waiting.remove(first)
        sorter.done(first)
        yield first


def _table(table: _Row, columns: list[_Row], constraints: list[_Row]) -> str:
    names = max((len(column["name"]) for column in columns), default=0)
    parts = [
        (column, f"{column['name']:{names}}  {column['type']}{column['definition']}") for column in columns
    ] + [(row, f"CONSTRAINT {row['name']} {row['definition']}") for row in constraints]
    lines = [
        f"{_comment(row, indent='    ')}    {text}{',' if number < len(parts) else ''}\n"
        for number, (row, text) in enumerate(parts, start=1)
    ]
    options = f" WITH ({table['options']})" if table["options"] else ""
    return f"CREATE TABLE {table['name']} (\n{''.join(lines)}){options};\n"


def _comment(row: _Row, *, indent: str = "") -> str:
    """The comment on something as lines of SQL comments."""
    lines = textwrap.wrap(
        row["comment"] or "", _WIDTH - len(indent) - 3, break_long_words=False, break_on_hyphens=False
    )
    return "".join(f"{indent}-- {line}\n" for line in lines)

"""The SQL of sql/queries/: one query a file, in a folder a capability, known by the file's name alone, read once.

A comment line `-- Private: email, name.` names parameters whose values must not appear in the server's log. The driver
puts values into the text of a statement, and the server logs the text of a statement that fails. So these values go
ahead, in a statement that has no reason to fail (see server.stores.postgres.query_runner).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

QUERIES_FOLDER = Path(__file__).resolve().parents[3] / "sql" / "queries"

_COMMENT_LINE = re.compile(r"^\s*--.*(?:\n|\Z)", re.MULTILINE)
_PRIVATE_LINE = re.compile(r"^-- Private: (?P<names>[a-z0-9_]+(?:, [a-z0-9_]+)*)\.$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<!%)(?:%%)*%\((?P<name>[a-z_][a-z0-9_]*)\)s")


@dataclass(frozen=True, slots=True)
class Query:
    """A query: its name, its SQL without comment lines, and the parameters that it must be given.

    Attributes:
        private: those of the parameters that are text of somebody's own, or null; an empty text counts as null.
    """

    name: str
    sql: str
    parameters: frozenset[str]
    private: frozenset[str] = frozenset()


def load_queries(folder: Path = QUERIES_FOLDER) -> Mapping[str, Query]:
    """Every query of a folder and of those inside it, by its name: `find_user` is identity/find_user.sql.

    Comment lines are for the reader of the file: they are not sent, so they may hold a percent sign.

    Raises:
        ValueError: two files have the same name, or one says that a parameter is private which it does not have.
    """
    queries: dict[str, Query] = {}
    for path in sorted(folder.rglob("*.sql")):
        if path.stem in queries:
            raise ValueError(
                f"{path.name} is in two folders of {folder}: logs and metrics say the name alone"
            )
        queries[path.stem] = _read(path)
    return MappingProxyType(queries)


def _read(path: Path) -> Query:
    text = path.read_text(encoding="utf-8")
    sql = _COMMENT_LINE.sub("", text).strip().rstrip(";").rstrip()
    parameters = frozenset(match["name"] for match in _PARAMETER.finditer(sql))
    line = _PRIVATE_LINE.search(text)
    private = frozenset[str]() if line is None else frozenset(line["names"].split(", "))
    if not private <= parameters:
        raise ValueError(f"{path.name}: no such parameters: {', '.join(sorted(private - parameters))}")
    return Query(path.stem, sql, parameters, private)

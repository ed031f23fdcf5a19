"""The SQL of sql/queries/: one query a file, known by the file's name, read once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

QUERIES_FOLDER = Path(__file__).resolve().parents[2] / "sql" / "queries"

_COMMENT_LINE = re.compile(r"^\s*--.*(?:\n|\Z)", re.MULTILINE)
_PARAMETER = re.compile(r"(?<!%)(?:%%)*%\((?P<name>[a-z_][a-z0-9_]*)\)s")


@dataclass(frozen=True, slots=True)
class Query:
    """A query: its name, its SQL without comment lines, and the parameters that it must be given."""

    name: str
    sql: str
    parameters: frozenset[str]


def load_queries(folder: Path = QUERIES_FOLDER) -> Mapping[str, Query]:
    """Every query of a folder by its name: `get_user` is the file get_user.sql.

    Comment lines are for the reader of the file: they are not sent, so they may hold a percent sign.
    """
    return MappingProxyType({path.stem: _read(path) for path in sorted(folder.glob("*.sql"))})


def _read(path: Path) -> Query:
    sql = _COMMENT_LINE.sub("", path.read_text(encoding="utf-8")).strip().rstrip(";").rstrip()
    return Query(path.stem, sql, frozenset(match["name"] for match in _PARAMETER.finditer(sql)))

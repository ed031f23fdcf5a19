"""A file of SQL taken apart into its statements, for those that PostgreSQL wants one at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What may hold a semicolon that ends nothing: comments, strings, quoted names, dollar-quoted bodies.
_TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*|/\*.*?\*/)
    | \b[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag)
    | (?P<end>;)
    | \w+
    | .
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its comments and its semicolon, and the line of the file it starts in."""

    text: str
    line: int


def split_statements(source: str) -> list[Statement]:
    """The statements of a file in order; comments and empty statements are left out.

    Args:
        source: plain PostgreSQL SQL; psql's backslash commands are not understood.
    """
    statements: list[Statement] = []
    parts: list[str] = []
    start = 0
    for token in _TOKEN.finditer(source):
        if token["end"]:
            _append(statements, parts, source, start)
            parts = []
        elif token["comment"]:
            parts.append(" ")
        else:
            if not parts or not "".join(parts).strip():
                start = token.start() if not token[0].isspace() else start
            parts.append(token[0])
    _append(statements, parts, source, start)
    return statements


def _append(statements: list[Statement], parts: list[str], source: str, start: int) -> None:
    text = "".join(parts).strip()
    if text:
        statements.append(Statement(text, source.count("\n", 0, start) + 1))

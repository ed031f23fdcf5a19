"""The files of sql/migrations/: which there are, in which order, and which of them a database still needs.

A new database begins with the files whose first line is `-- baseline`. They come to the same as those of the folder
`before_0_2/`, which they replaced: a database that began with these gets the rest of them, and is then taken for one
that has the baseline; and the other way round, so that a release before the baseline finds nothing to do either.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from server.errors import CommandError
from server.files import ROOT

MIGRATIONS_FOLDER = ROOT / "sql" / "migrations"
REPLACED_FOLDER = "before_0_2"

_NAME = re.compile(r"(?P<number>\d{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql")
_TRANSACTION_CONTROL = re.compile(r"(begin|start\s+transaction|commit|end|rollback|abort)\b", re.IGNORECASE)
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


class MigrationError(CommandError):
    """The database was not brought up to date; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name, its text and the SHA-256 of that text, whatever the checkout did to line ends.

    Attributes:
        is_replaced: the baseline has taken its place; it is only for databases that began before.
    """

    name: str
    source: str
    sha256: str
    is_replaced: bool = False

    @property
    def kind(self) -> Literal["transaction", "baseline", "no-transaction", "batched"]:
        """How it is run, as its first line says."""
        match self.source.partition("\n")[0].strip():
            case "-- baseline":
                return "baseline"
            case "-- no-transaction":
                return "no-transaction"
            case "-- batched":
                return "batched"
        return "transaction"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its comments and its semicolon, and the line of the file it starts in."""

    text: str
    line: int


def read_migrations(folder: Path = MIGRATIONS_FOLDER) -> list[Migration]:
    """The migrations of a folder in order: `0001_words.sql`, `0002_words.sql`, … without a gap.

    The first of them may be in its folder `before_0_2/`: those that the baseline has replaced.

    Raises:
        MigrationError: a name does not fit, a number is missing or used twice, or there is no such folder.
    """
    if not folder.is_dir():
        raise MigrationError(f"there is no folder {folder}")
    paths = sorted(
        [*folder.glob("*.sql"), *(folder / REPLACED_FOLDER).glob("*.sql")], key=lambda path: path.name
    )
    problems = [
        f"{path.name}: expected a name such as 0007_words_with_underscores.sql"
        for path in paths
        if not _NAME.fullmatch(path.name)
    ]
    numbered = [path for path in paths if _NAME.fullmatch(path.name)]
    for expected, path in enumerate(numbered, start=1):
        if int(path.name[:4]) != expected:
            problems.append(
                f"{path.name}: expected number {expected:04d}; numbers have no gaps, no duplicates"
            )
            break
    if problems:
        raise MigrationError("; ".join(problems))
    return [_read(path) for path in numbered]


def _alternatives(migrations: list[Migration]) -> tuple[list[Migration], list[Migration]]:
    """The files that the baseline has replaced, and the baseline: each of the two comes to the same."""
    return (
        [migration for migration in migrations if migration.is_replaced],
        [migration for migration in migrations if migration.kind == "baseline"],
    )


def implied_by(migrations: list[Migration], history: dict[str, str]) -> list[Migration]:
    """What a database has without having run it: the baseline, or the files that it has replaced.

    Only where all of the others were applied, as they are here: a database that is on its way has neither.
    """
    replaced, baseline = _alternatives(migrations)
    for applied, implied in ((replaced, baseline), (baseline, replaced)):
        if applied and all(history.get(one.name) == one.sha256 for one in applied):
            return [one for one in implied if one.name not in history]
    return []


def unapplied(migrations: list[Migration], history: dict[str, str]) -> list[Migration]:
    """The files that are still to be applied, in order.

    Raises:
        MigrationError: what was applied is not what is in the files, other than that there is more of it.
    """
    replaced, baseline = _alternatives(migrations)
    # A database goes one way to the end, and what it comes to is the other one.
    is_older = not baseline or any(migration.name in history for migration in replaced)
    others = [one for one in (baseline if is_older else replaced) if one.name not in history]
    migrations = [migration for migration in migrations if migration not in others]
    by_name = {migration.name: migration for migration in migrations}
    newest = max(by_name, default="")
    last = max(history, default="")
    pending = [migration for migration in migrations if migration.name not in history]
    problems = [
        f"{name} has been applied but its file is gone"
        for name in history
        if name not in by_name and (name < newest or pending)
    ]
    for migration in migrations:
        if migration.name not in history and migration.name < last:
            problems.append(f"{migration.name} is new but {last} has been applied before it: renumber it")
        elif history.get(migration.name, migration.sha256) != migration.sha256:
            problems.append(
                f"{migration.name} was changed after it had been applied: restore it, add a new file"
            )
    if problems:
        raise MigrationError("; ".join(problems))
    return pending


def _read(path: Path) -> Migration:
    content = path.read_bytes().replace(b"\r\n", b"\n")
    migration = Migration(
        path.name,
        content.decode("utf-8"),
        hashlib.sha256(content).hexdigest(),
        is_replaced=path.parent.name == REPLACED_FOLDER,
    )
    for statement in split_statements(migration.source):
        if _TRANSACTION_CONTROL.match(statement.text):
            raise MigrationError(
                f"{path.name}, line {statement.line}: a migration must not begin or end transactions; "
                "the whole file is one already"
            )
    return migration


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

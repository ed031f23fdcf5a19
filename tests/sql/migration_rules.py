"""What a migration may do while the service runs: nothing that rewrites, scans or locks a large table for long.

A list of what is allowed, statement by statement: what is not understood is refused, and the way it is done instead is
named. A table that the same file makes is empty, and free.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from server.cli.migration_files import Migration, Statement, split_statements

_NAME = r'(?:"?[a-z_][a-z0-9_]*"?\.)?"?(?P<name>[a-z_][a-z0-9_]*)"?'
_CREATE_TABLE = re.compile(rf"create (?:unlogged )?table (?:if not exists )?{_NAME}")
_ALTER_TABLE = re.compile(rf"alter table (?:if exists )?(?:only )?{_NAME} (?P<actions>.+)", re.DOTALL)
_CREATE_INDEX = re.compile(
    rf"create (?:unique )?index (?P<concurrently>concurrently )?(?:if not exists )?"
    rf"(?:[a-z_][a-z0-9_]* )?on (?:only )?{_NAME}"
)
_WRITE = re.compile(rf"(?:update|delete from|insert into|merge into) (?:only )?{_NAME}")
_WRITE_ANYWHERE = re.compile(r"\b(?:update|delete from|insert into|merge into)\b")
_ADD_COLUMN = re.compile(r"add (?:column )?(?:if not exists )?[a-z_][a-z0-9_]* (?P<rest>.+)", re.DOTALL)
# What is worked out once for all rows, and kept beside the table instead of in each of them.
_CONSTANT = re.compile(
    r"default (?:'(?:[^']|'')*'(?:::[a-z0-9_ \[\]]+)?|-?[0-9.]+|true|false|null|now\(\)|current_timestamp)"
    r"(?= not null| null| constraint|$)"
)
_NOT_NULL_CHECK = re.compile(
    r"add constraint (?P<name>[a-z_][a-z0-9_]*)"
    r" check \(\(?\s*(?P<column>[a-z_][a-z0-9_]*) is not null\s*\)?\) not valid"
)
_FREE = re.compile(
    r"create (?:or replace )?(?:function|procedure|view|constraint trigger|trigger)\b|create type\b|create extension\b"
    r"|create sequence\b|drop (?:trigger|function|procedure|view)\b|comment on\b|grant\b|revoke\b|analyze\b"
    r"|alter (?:function|trigger)\b"
)
_FREE_ACTIONS = re.compile(
    r"alter (?:column )?[a-z_][a-z0-9_]* (?:set default|drop default|drop not null|set statistics|set storage)\b"
    r"|drop constraint\b|set \(|reset \(|(?:enable|disable) (?:always |replica )?trigger\b"
)


def find_violations(migrations: Sequence[Migration], *, begin: int) -> list[str]:
    """What migrations do that they must not, each as a line that says where, what and how else.

    Args:
        migrations: all of them, in order.
        begin: the number of the first that is judged; those before are only remembered.
    """
    violations: list[str] = []
    checked: dict[str, str] = {}  # by constraint: the column that a NOT VALID check keeps from being null
    validated: set[str] = set()  # the columns of those that are validated by now
    for migration in migrations:
        statements = [
            Statement(_normal(statement.text), statement.line)
            for statement in split_statements(migration.source)
        ]
        own = {match["name"] for one in statements if (match := _CREATE_TABLE.match(one.text))}
        if int(migration.name[:4]) >= begin:
            violations += [
                f"{migration.name}, line {statement.line}: {problem}"
                for statement in statements
                for problem in _judge(migration, statement.text, own, validated, alone=len(statements) == 1)
            ]
        for statement in statements:
            for check in _NOT_NULL_CHECK.finditer(statement.text):
                checked[check["name"]] = check["column"]
            for name in re.findall(r"validate constraint ([a-z_][a-z0-9_]*)", statement.text):
                validated |= {checked[name]} if name in checked else set()
    return violations


def _judge(  # noqa: C901, PLR0912 - a list of cases, one after another
    migration: Migration, text: str, own: set[str], validated: set[str], *, alone: bool
) -> Iterator[str]:
    if "concurrently" in text.split("$", maxsplit=1)[0].split() and migration.kind != "no-transaction":
        yield "CONCURRENTLY can't run in a transaction: `-- no-transaction` is the file's first line"
    if migration.kind == "no-transaction" and re.search(
        r"^create table (?!if)|^drop \w+ (?:concurrently )?(?!if |concurrently)|\badd (?:column )(?!if )",
        text,
    ):
        yield "an interrupted run repeats the statement: IF EXISTS, or IF NOT EXISTS"
    if migration.kind == "batched":
        if not (_WRITE_ANYWHERE.search(text) and " limit " in f"{text} "):
            yield "a batched statement writes a part of a table: UPDATE, DELETE or INSERT with a LIMIT"
    elif _CREATE_TABLE.match(text):
        if re.search(r"\bas (?:select|table|with)\b", text):
            yield "CREATE TABLE … AS reads a whole table: create it empty, and fill it in a `-- batched` file"
    elif match := _ALTER_TABLE.match(text):
        if match["name"] not in own:
            for action in _split_actions(match["actions"]):
                yield from _judge_action(migration, action, validated, alone=alone)
    elif match := _CREATE_INDEX.match(text):
        if not match["concurrently"] and match["name"] not in own:
            yield "CREATE INDEX blocks every write: CREATE INDEX CONCURRENTLY, in a `-- no-transaction` file"
    elif text.startswith("drop index"):
        if not text.startswith("drop index concurrently"):
            yield "DROP INDEX waits for every reader: DROP INDEX CONCURRENTLY, in a `-- no-transaction` file"
    elif text.startswith("reindex"):
        if " concurrently" not in text:
            yield "REINDEX blocks every write: REINDEX … CONCURRENTLY, in a `-- no-transaction` file"
    elif match := _WRITE.match(text):
        is_values = text.startswith("insert") and re.search(r"\bvalues\b", text) and " select " not in text
        if match["name"] not in own and not is_values:
            yield "a write to a whole table locks its rows until the end: a `-- batched` file"
        elif match["name"] in own and not is_values:
            yield "a new table is filled from another one in a `-- batched` file"
    elif not _FREE.match(text):
        yield f"{text[:40]!r} is not known to be harmless on a large table (tests/sql/migration_rules.py)"


def _judge_action(  # noqa: C901 - the same
    migration: Migration, action: str, validated: set[str], *, alone: bool
) -> Iterator[str]:
    """The same for one action of ALTER TABLE on a table that was there before."""
    if action.startswith("validate constraint"):
        if migration.kind != "no-transaction" and not alone:
            yield "VALIDATE CONSTRAINT scans under the locks of the statements before it: a file of its own"
    elif action.startswith("add constraint") or re.match(
        r"add (?:check|foreign|unique|primary|exclude)\b", action
    ):
        if not (action.endswith(" not valid") or " using index " in action):
            yield (
                "ADD CONSTRAINT scans the table: NOT VALID, then VALIDATE CONSTRAINT in a later file; for a key "
                "an index that is built CONCURRENTLY, and USING INDEX"
            )
    elif match := re.match(r"alter (?:column )?([a-z_][a-z0-9_]*) set not null", action):
        if match[1] not in validated:
            yield (
                "SET NOT NULL scans the table: in the files before, a CHECK (… IS NOT NULL) NOT VALID, and its "
                "VALIDATE CONSTRAINT"
            )
    elif re.match(r"alter (?:column )?[a-z_][a-z0-9_]* (?:set data )?type\b", action):
        yield "another type rewrites the table: a new column, a trigger that fills it, a `-- batched` backfill"
    elif re.match(r"rename\b|drop (?:column\b|(?!constraint))", action):
        yield (
            "the release before still reads that name: drop it a release after the last one that does, "
            "and never rename"
        )
    elif match := _ADD_COLUMN.match(action):
        yield from _judge_column(match["rest"])
    elif not _FREE_ACTIONS.match(action):
        yield f"ALTER TABLE … {action[:30]!r} is not known to be harmless (tests/sql/migration_rules.py)"


def _judge_column(definition: str) -> Iterator[str]:
    has_default = " default " in f" {definition} "
    if re.search(r"\b(?:small|big)?serial\b|\bgenerated\b", definition) or (
        has_default and not _CONSTANT.search(definition)
    ):
        yield "a value of its own for each row rewrites the table: no default, then a `-- batched` backfill"
    if "not null" in definition and not has_default:
        yield "the release before does not fill it: nullable, or with a constant default"
    if re.search(r"\b(?:references|unique|primary key|check)\b", definition):
        yield "a constraint on a new column locks or scans: ADD CONSTRAINT … NOT VALID by itself"


def _normal(text: str) -> str:
    """A statement in lower case, each run of white space one blank."""
    return re.sub(r"\s+", " ", text).strip().lower()


def _split_actions(actions: str) -> list[str]:
    """The actions of ALTER TABLE: what stands between commas that are in no brackets and no string."""
    parts, depth, quoted = [""], 0, False
    for character in actions:
        quoted ^= character == "'"
        if not quoted:
            depth += (character == "(") - (character == ")")
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]

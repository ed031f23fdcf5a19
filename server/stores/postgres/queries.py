"""The SQL of sql/queries/, and how one query runs on one connection: checked, commented, timed, its errors translated.

There is one query a file, in a folder a capability; the file's name alone identifies it. A comment line
`-- Private: email, name.` names parameters whose values must not appear in the server's log. The driver puts values
into the text of a statement, and the server logs the text of a statement that fails. So these values go ahead, in a
statement that has no reason to fail.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

import psycopg2
import structlog
from psycopg2.extensions import AsIs, register_adapter
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver names its class in lower case
from psycopg2.extras import Json

from server.files import ROOT
from server.stores.postgres.connection import Connection
from server.stores.postgres.errors import translate_query_error
from server.telemetry.context import current_request
from server.telemetry.timings import operation

log = structlog.get_logger(__name__)

register_adapter(dict, Json)  # a dict among the parameters is jsonb

QUERIES_FOLDER = ROOT / "sql" / "queries"

_COMMENT_LINE = re.compile(r"^\s*--.*(?:\n|\Z)", re.MULTILINE)
_PRIVATE_LINE = re.compile(r"^-- Private: (?P<names>[a-z0-9_]+(?:, [a-z0-9_]+)*)\.$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<!%)(?:%%)*%\((?P<name>[a-z_][a-z0-9_]*)\)s")
_SERIOUS = frozenset({"WARNING"})
OnQuery = Callable[[str, float], None]
_UNSAFE_IN_COMMENT = re.compile(r"[^A-Za-z0-9._:+/=-]")
_LONGEST_REQUEST_ID = 200


@dataclass(frozen=True, slots=True)
class Query:
    """A query: its name, its SQL without comment lines, and the parameters that it must be given.

    Attributes:
        private: those of the parameters that are personal text, or null; an empty text counts as null.
    """

    name: str
    sql: str
    parameters: frozenset[str]
    private: frozenset[str] = frozenset()


@functools.cache
def load_queries(folder: Path = QUERIES_FOLDER) -> Mapping[str, Query]:
    """Every query of a folder and of those inside it, by its name: `find_user` is identity/find_user.sql.

    A process reads a folder once: its files change with the release only.
    Comment lines are for the reader of the file: they are not sent, so they may hold a percent sign.

    Raises:
        ValueError: two files have the same name, or one declares a private parameter that it does not have.
    """
    queries: dict[str, Query] = {}
    for path in sorted(folder.rglob("*.sql")):
        if path.stem in queries:
            raise ValueError(
                f"{path.name} is in two folders of {folder}: logs and metrics name it without its folder"
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


def log_notices(raw: Any, *, query: str) -> None:
    """Log and drop the NOTICE and WARNING messages of the last statement, which the driver only collects.

    Args:
        raw: psycopg2's connection; it keeps fifty of them at most.
        query: the statement's name.
    """
    notices, raw.notices = raw.notices, []
    for text in notices:
        severity, _, message = text.strip().partition(":")
        report = log.warning if severity in _SERIOUS else log.info
        report("database.notice", query=query, severity=severity, detail=message.strip())


class QueryRunner:
    """Runs statements on a given connection, times them, and translates their errors.

    Args:
        queries: by name.
        query_timeout_ms: how long a statement may take.
        slow_query_ms: from here on a query is warned of.
        on_query: called with a query's name and its seconds, well or failed.
    """

    def __init__(
        self,
        queries: Mapping[str, Query],
        *,
        query_timeout_ms: float,
        slow_query_ms: float,
        on_query: OnQuery | None,
    ) -> None:
        self.queries = queries
        self._query_timeout_seconds = query_timeout_ms / 1000
        self._slow_query_ms = slow_query_ms
        self._on_query = on_query

    async def run(
        self,
        connection: Connection,
        query: Query,
        parameters: Mapping[str, Any],
        *,
        final: bool,
        preamble: str = "",
        timeout_seconds: float | None = None,
    ) -> Cursor:
        """Run one query and return its cursor.

        Args:
            connection: idle, or in the transaction that the query belongs to.
            query: what to run.
            parameters: exactly those that it names.
            final: what it changes stays at once, so that a lost answer leaves the outcome unknown.
            preamble: statements to run before it, in the same message and so in the same transaction. For a query with
                private parameters it has to begin one, or that has been done already.
            timeout_seconds: how long it may take; by default as long as any query.

        Raises:
            MasteryError: one of server.stores.postgres.errors.
            TypeError: a parameter is missing, or is one too many.
        """
        if parameters.keys() != query.parameters:
            wrong = ", ".join(sorted(parameters.keys() ^ query.parameters))
            raise TypeError(f"{query.name} takes other parameters: {wrong}")
        started = perf_counter()
        try:
            if query.private:
                parameters = await self._send_private(connection, query, parameters, preamble)
                preamble = ""
            return await self.run_sql(
                connection,
                query.name,
                preamble + query.sql,
                parameters,
                final=final,
                timeout_seconds=timeout_seconds,
            )
        finally:
            seconds = perf_counter() - started
            if self._on_query is not None:
                self._on_query(query.name, seconds)
            if seconds * 1000 >= self._slow_query_ms:
                log.warning("database.slow_query", query=query.name, duration_ms=round(seconds * 1000, 2))

    async def _send_private(
        self, connection: Connection, query: Query, parameters: Mapping[str, Any], preamble: str
    ) -> dict[str, Any]:
        """Keep the private values as the transaction's own settings; return the parameters with these named instead."""
        sql = ", ".join(f"set_config('private.{name}', %({name})s, true)" for name in sorted(query.private))
        values = {name: parameters[name] for name in query.private}
        await self.run_sql(connection, query.name, f"{preamble}SELECT {sql}", values, final=False)
        return dict(parameters) | {
            name: AsIs(f"nullif(current_setting('private.{name}'), '')") for name in query.private
        }

    async def run_sql(
        self,
        connection: Connection,
        name: str,
        sql: str,
        parameters: Mapping[str, Any] | None,
        *,
        final: bool,
        timeout_seconds: float | None = None,
    ) -> Cursor:
        """Run plain SQL under a name, without measuring it. Arguments and errors otherwise as `run`."""
        try:
            with operation("db", name):
                return await connection.run(
                    f"{sql} {_comment(name)}",
                    parameters,
                    timeout_seconds=self._query_timeout_seconds
                    if timeout_seconds is None
                    else timeout_seconds,
                )
        except (psycopg2.Error, TimeoutError, ValueError) as error:
            raise translate_query_error(
                error, query=name, connection_closed=connection.closed, outcome_unknown=final
            ) from None
        finally:
            if connection.raw.notices:
                log_notices(connection.raw, query=name)


def _comment(name: str) -> str:
    """A comment that links PostgreSQL's log with ours; nothing in it can end it or be a parameter."""
    request = current_request.get()
    if request is None:
        return f"/* query={name} */"
    safe = _UNSAFE_IN_COMMENT.sub("", request.request_id)[:_LONGEST_REQUEST_ID]
    return f"/* query={name} request_id={safe} */"

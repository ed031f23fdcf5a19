"""The errors of the database. The driver's own, which quote data, are translated here and go no further."""

from __future__ import annotations

import re
import socket

import psycopg2
from psycopg2.extensions import Diagnostics, QueryCanceledError

from server.errors import InvalidInput, MasteryError, ServiceUnavailable, first_line

# States that say "not now" rather than "wrong": www.postgresql.org/docs/current/errcodes-appendix.html
_REASON_BY_STATE = {
    "25006": "read_only",  # a former primary after a failover, or default_transaction_read_only
    "42501": "read_only",  # how some platforms enforce a plan's size: INSERT is revoked
    "53100": "disk_full",
    "53300": "too_many_connections",
    # The schema is older than the code: no such column, object, table, function, unique index, schema.
    "42703": "schema",
    "42704": "schema",
    "42P01": "schema",
    "42883": "schema",
    "42P10": "schema",
    "3F000": "schema",
    "40001": "serialization",
    "40P01": "deadlock",
    "55P03": "locked",  # lock_timeout
    "57014": "timeout",  # statement_timeout
    "57P01": "closed",  # an administrator ended the connection
    "57P02": "closed",
    "57P03": "starting",
    "57P05": "closed",  # idle for too long
}
_WORDS_BY_REASON = {
    "refused": ("refused", "no such file"),
    "timeout": ("timeout", "timed out"),
    "starting": ("starting up", "shutting down", "recovery mode"),
    "too_many_connections": (
        "too many clients",
        "too many connections",
        "connection slots",
        "no more connections",
    ),
    "rejected": ("fatal:",),
}
_REASON_BY_CLASS = {"08": "closed", "53": "resources"}
# Too long, out of range, no such date, NUL in text or jsonb, not a UUID: the value's fault.
# And what is too large for PostgreSQL itself, such as for a row of an index.
_VALUE_CLASSES = frozenset({"22", "54"})
# A column that takes no null, a rule about a row's values: the same, by the schema's rules.
_VALUE_RULES = frozenset({"23502", "23514"})
# What a rule about one column ends in: classes_name_length.
_RULE = re.compile(r"_(length|positive|range|known)$")
_RETRYABLE = frozenset({"closed", "serialization", "deadlock"})


class DatabaseUnavailable(ServiceUnavailable):
    """The database is not available; try again shortly."""

    def __init__(self, reason: str, *, outcome_unknown: bool = False, driver_message: str = "") -> None:
        """Args: reason: a short word, see below; outcome_unknown: whether a write may have happened.

        driver_message: why there is no connection, in libpq's words; for the log alone.

        Reasons: refused, rejected, too_many_connections, unresolved, starting, timeout, pool_exhausted, closed,
        locked, resources, serialization, deadlock; those of the classes below.
        """
        super().__init__()
        self.reason = reason
        self.outcome_unknown = outcome_unknown
        self.driver_message = driver_message

    @property
    def retryable(self) -> bool:
        """Whether the same transaction, run again at once, may succeed and can't happen twice."""
        return self.reason in _RETRYABLE and not self.outcome_unknown

    def __str__(self) -> str:
        return self.reason


class DatabaseReadOnly(DatabaseUnavailable):
    """The database takes no writes at the moment; reading goes on."""

    code = "read_only"


class DatabaseFull(DatabaseUnavailable):
    """The database has no room for what is new; reading goes on."""

    code = "disk_full"


class SchemaOutdated(DatabaseUnavailable):
    """The database is being brought up to date; try again shortly."""

    code = "schema"

    def __str__(self) -> str:
        return f"{self.reason}: {self.driver_message}" if self.driver_message else self.reason


_CLASS_BY_REASON: dict[str, type[DatabaseUnavailable]] = {
    "read_only": DatabaseReadOnly,
    "disk_full": DatabaseFull,
    "schema": SchemaOutdated,
}


def unavailable(
    reason: str, *, outcome_unknown: bool = False, driver_message: str = ""
) -> DatabaseUnavailable:
    """The error of a reason, of the reason's own class if it has one. Arguments as DatabaseUnavailable."""
    kind = _CLASS_BY_REASON.get(reason, DatabaseUnavailable)
    return kind(reason, outcome_unknown=outcome_unknown, driver_message=driver_message)


class ConstraintViolated(MasteryError):
    """A rule of the stored data does not allow this."""

    status = 409
    code = "conflict"
    title = "Conflict"

    def __init__(self, constraint_name: str, sqlstate: str, *, column: str | None = None) -> None:
        """Args: constraint_name: as in sql/migrations, for the domain to map; sqlstate: of class 23.

        column: whose value is at fault, where that is known.
        """
        super().__init__()
        self.constraint_name = constraint_name
        self.sqlstate = sqlstate
        self.column = column

    @property
    def refuses_value(self) -> bool:
        """Whether the value itself is wrong, whatever else is stored."""
        return self.sqlstate in _VALUE_RULES

    def __str__(self) -> str:
        return f"{self.constraint_name} ({self.sqlstate})"


class ValueRefused(InvalidInput):
    """A value can't be stored: it is too long, out of range, or holds a character that text may not hold."""

    def __init__(self, query: str = "", sqlstate: str = "") -> None:
        """Args: query: its name; sqlstate: of class 22, or empty where the driver has refused the value."""
        super().__init__()
        self.query = query
        self.sqlstate = sqlstate


class QueryFailed(MasteryError):
    """The service can't do what was asked."""

    def __init__(self, query: str, sqlstate: str, message: str) -> None:
        """Args: query: its name; sqlstate: five characters or empty; message: never quotes a parameter."""
        super().__init__()
        self.query = query
        self.sqlstate = sqlstate
        self.message = message

    def __str__(self) -> str:
        return f"{self.query}: {self.message} ({self.sqlstate})"


def translate_connect_error(error: BaseException) -> DatabaseUnavailable:
    """The error for a failed connect. libpq gives no codes while it connects, so its texts are searched for words."""
    return DatabaseUnavailable(_connect_reason(error), driver_message=first_line(error))


def _connect_reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, socket.gaierror):
        return "unresolved"
    text = str(error).lower()
    for reason, words in _WORDS_BY_REASON.items():
        if any(word in text for word in words):
            return reason
    return "closed"


def translate_query_error(
    error: BaseException, *, query: str, connection_closed: bool, outcome_unknown: bool
) -> MasteryError:
    """The error that stands for a failed statement.

    Args:
        error: from the driver, or a timeout of the client's.
        query: the name of what was run.
        connection_closed: whether the connection is gone with it.
        outcome_unknown: whether the statement, had it arrived, would have changed something for good.
    """
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable("timeout", outcome_unknown=outcome_unknown)
    if isinstance(error, QueryCanceledError):
        # The server has reported that it cancelled and undid the statement.
        return DatabaseUnavailable("timeout")
    if isinstance(error, ValueError):
        # The driver's word for NUL in a string, and for a lone surrogate, which has no UTF-8.
        return ValueRefused(query)
    state = (error.pgcode or "") if isinstance(error, psycopg2.Error) else ""
    if state[:2] in _VALUE_CLASSES:
        return ValueRefused(query, state)
    lost = connection_closed or isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError))
    reason = _REASON_BY_STATE.get(state) or _REASON_BY_CLASS.get(state[:2]) or ("closed" if lost else None)
    if reason is not None:
        message = f"{query}: {_message_about_query(error, state)} ({state})" if reason == "schema" else ""
        is_unknown = outcome_unknown and reason == "closed"
        return unavailable(reason, outcome_unknown=is_unknown, driver_message=message)
    return _translate_refusal(error, query, state)


def _translate_refusal(error: BaseException, query: str, state: str) -> MasteryError:
    """The error of a statement that a working server has refused."""
    if not isinstance(error, psycopg2.Error):
        return QueryFailed(query, state, type(error).__name__)
    if state[:2] == "23":
        return ConstraintViolated(error.diag.constraint_name or "", state, column=_column_of(error.diag))
    return QueryFailed(query, state, _message_about_query(error, state))


def _column_of(diagnostics: Diagnostics) -> str | None:
    """The column that a constraint is about: reported for a null, and part of the name of a rule about one column."""
    if diagnostics.column_name is not None:
        return diagnostics.column_name
    rule = (diagnostics.constraint_name or "").removeprefix(f"{diagnostics.table_name}_")
    column, count = _RULE.subn("", rule)
    return column if count else None


def _message_about_query(error: BaseException, state: str) -> str:
    """Only messages of class 42 (syntax, unknown names) are about the query; others quote the data."""
    message = error.diag.message_primary if isinstance(error, psycopg2.Error) and state[:2] == "42" else None
    return message or type(error).__name__

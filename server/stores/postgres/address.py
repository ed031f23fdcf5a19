"""Checks a PostgreSQL URL before anything connects: the driver would report mistakes only at the first use."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg2
from psycopg2.extensions import parse_dsn

# Options that other tools write into the same URL (Prisma's, SQLAlchemy's) and that mean nothing to the driver.
_OF_OTHER_TOOLS = frozenset(
    {
        "pgbouncer",
        "connection_limit",
        "pool_timeout",
        "socket_timeout",
        "statement_cache_size",
        "sslaccept",
        "family",
    }
)
# libpq reads these when it connects; a wrong value would be a database that is down for ever.
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_NUMBERS = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where PostgreSQL is.

    Attributes:
        url: what the driver is given.
        ignored: options that were left out, since they are other tools'.
    """

    url: str
    ignored: tuple[str, ...]


def parse_database_url(url: str) -> DatabaseAddress:
    """Parse a URL, and check its options.

    Args:
        url: `postgresql://` or `postgres://` with the options of libpq
            (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS).

    Raises:
        ValueError: there is an option, or a value of one, that is not known; the message names it and does not
            repeat the URL, which may hold a password.
    """
    parts = urlsplit(url)
    kept, ignored = [], []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _OF_OTHER_TOOLS or (name, value) == ("schema", "public"):
            ignored.append(name)
            continue
        if name == "schema":
            raise ValueError(
                "the option schema is Prisma's: another schema than public is options=-csearch_path%3DNAME"
            )
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(f"the option {name} takes one of {', '.join(_CHOICES[name])}")
        if name in _NUMBERS and not (value.isascii() and value.isdigit()):
            raise ValueError(f"the option {name} takes a whole number")
        kept.append((name, value))
    if ignored:
        url = urlunsplit(parts._replace(query=urlencode(kept)))
    try:
        parse_dsn(url)
    except psycopg2.ProgrammingError as error:
        reason = str(error).strip()
        if "URI query parameter" in reason:  # the others repeat parts of the URL
            unknown = reason.rpartition(":")[2].strip()
            raise ValueError(f"PostgreSQL's driver knows no option {unknown}") from None
        raise ValueError("PostgreSQL's driver does not understand it") from None
    return DatabaseAddress(url, tuple(ignored))

"""How the commands reach the database, and what they print where that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case

from server.errors import CommandError, first_line

CONNECT_SECONDS = 10


@contextlib.contextmanager
def connected(url: str, *, failed: str, error: type[CommandError] = CommandError) -> Iterator[Connection]:
    """A connection to the database, which is closed at the end.

    Args:
        url: the database.
        failed: what has not happened if the database reports an error, as the beginning of a sentence.
        error: what is raised then.

    Raises:
        CommandError: `error`, with the first line of what the database reported.
    """
    try:
        with contextlib.closing(psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)) as connection:
            yield connection
    except psycopg2.Error as reported:
        raise error(f"{failed}: {first_line(reported)}") from None

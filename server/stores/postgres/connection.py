"""A connection of aiopg's that runs a statement in one step, for a third of what its cursors cost.

Those are made through a context manager, with a transaction of their own, and wait by a task-safe timeout of asyncio's,
for each statement. They also report a statement that the server has cancelled as a cancellation of the caller's task.
Here a statement's own error is raised, and its deadline is a timer. What reads and writes the socket is aiopg's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import aiopg
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver names its class in lower case

Result = TypeVar("Result")


class Connection(aiopg.Connection):
    """One session; at most one statement runs at a time."""

    async def run(self, sql: str, parameters: Mapping[str, Any] | None, *, timeout_seconds: float) -> Cursor:
        """Run a statement, or several in one message; the result is that of the last.

        The connection is closed if there is no answer in time, or if the caller is cancelled: the server ends the
        statement when it finds nobody at the other end.

        Raises:
            psycopg2.Error: the statement failed, or the connection was lost.
            TimeoutError: there was no answer in time.
        """
        waiter = self._create_waiter("run")
        try:
            cursor: Cursor = self._conn.cursor()
            cursor.execute(sql, parameters)
            self._ready(self._weakref)  # what the socket has not taken is written when it can be
            await wait_at_most(waiter, timeout_seconds)
        except (asyncio.CancelledError, TimeoutError):
            self._close()
            raise
        finally:
            self._waiter = None
        return cursor


async def wait_at_most(waiter: asyncio.Future[Result], seconds: float) -> Result:
    """The result of a future that nobody else waits for.

    Raises:
        TimeoutError: it did not come in time; the future has this error then.
    """
    timer = waiter.get_loop().call_later(seconds, _expire, waiter)
    try:
        return await waiter
    finally:
        timer.cancel()


def _expire(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())

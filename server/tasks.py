"""Background tasks of a process that do the same thing again and again."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

import structlog


class Periodic(ABC):
    """A background task: calls `once` at once, and again after a pause, until it is closed.

    An exception does not end it. It is logged when it begins, not again while the same kind of exception goes on.

    Args:
        name: of the task.
        interval_seconds: the pause between the end of one call and the begin of the next.
        failure: the event that an exception is logged as.
    """

    def __init__(self, name: str, *, interval_seconds: float, failure: str = "task.failed") -> None:
        self._task_name = name
        self._pause_seconds = interval_seconds
        self._failure_event = failure
        self._log = structlog.get_logger(type(self).__module__)
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def once(self) -> None:
        """What is done every time."""

    async def start(self) -> None:
        """Begin; the first call is made soon after this returns."""
        self._task = asyncio.create_task(self._run(), name=self._task_name)

    async def close(self) -> None:
        """Cancel the task and wait for its end; without a task, nothing happens."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        logged: type[Exception] | None = None
        while True:
            try:
                await self.once()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next call may succeed
                if type(error) is not logged:
                    logged = type(error)
                    self._log.warning(self._failure_event, task=self._task_name, error=error)
            else:
                logged = None
            await asyncio.sleep(self._pause_seconds)

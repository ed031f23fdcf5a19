"""A periodic task goes on whatever happens in it, and says so once."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from server.tasks import Periodic
from tests.support.waiting import wait_until


class Failing(Periodic):
    """Counts its calls, and fails with what it is given."""

    def __init__(self) -> None:
        super().__init__("failing", interval_seconds=0.001)
        self.calls = 0
        self.failure: Exception | None = None

    async def once(self) -> None:
        """Count, then fail."""
        self.calls += 1
        if self.failure is not None:
            raise self.failure


async def go_on(task: Failing) -> None:
    """Wait for three more calls, of which the last began after the first of them had ended."""
    before = task.calls
    await wait_until(lambda: task.calls >= before + 3, "three more calls")


async def test_what_goes_wrong_is_logged_once_and_ends_nothing() -> None:
    """The same failure is logged when it begins; another kind, and the same after a success, are logged again."""
    task = Failing()
    failures = (LookupError("a"), LookupError("b"), OSError("c"), None, OSError("d"))
    with capture_logs() as lines:
        await task.start()
        for task.failure in failures:
            await go_on(task)
        await task.close()
    assert [("task.failed", "failing", text) for text in "acd"] == [
        (line["event"], line["task"], str(line["error"].args[0])) for line in lines
    ]


async def test_it_is_called_until_it_is_closed() -> None:
    """Nothing is left of a closed task; it can be closed before its start and twice, and started again."""
    task = Failing()
    await task.close()
    await task.start()
    await go_on(task)
    await task.close()
    await task.close()
    assert 1 == len(asyncio.all_tasks())
    await task.start()
    await go_on(task)
    await task.close()

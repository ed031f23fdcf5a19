"""The unit of work: what follows from a write follows from its commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from server.domain.writing import Unit, Writer
from server.errors import NotFound
from server.stores.postgres.database import Database, DatabaseUnavailable
from tests.api.conftest import redis_url
from tests.stores.cache.caches import Process, Source, open_process

__all__ = ["redis_url"]  # a fixture

NEW_CLASS = {
    "name": "Law", "description": None, "icon": None, "color": None, "sort_order": 0, "is_published": True,
    "scheduler": "fixed",
}  # fmt: skip
KEY = "c:page"


@pytest.fixture
async def process(redis_url: str) -> AsyncIterator[Process]:
    """A cache that holds the page `first`."""
    async with open_process(redis_url) as process:
        assert "first" == await process.cache.lookup(KEY).value(Source("first").load)
        yield process


async def page_after(process: Process) -> str:
    """What a reader of the page gets now: `first` if it was left in the cache."""
    page: str = await process.cache.lookup(KEY).value(Source("second").load)
    return page


async def test_consequences_follow_the_commit(database: Database, process: Process) -> None:
    """When they run, others see the change; and when the write returns, no reader gets the old page."""
    seen_when_done: list[str] = []

    async def work(unit: Unit) -> UUID:
        row = await unit.transaction.fetch_one("create_class", **NEW_CLASS)
        assert row is not None
        unit.stale.add(KEY)
        unit.afterwards.append(lambda: seen_when_done.append("done"))
        assert await database.fetch_one("get_class", class_id=row["id"]) is None
        assert [] == seen_when_done
        made: UUID = row["id"]
        return made

    class_id = await Writer(database, process.cache).run(work)

    assert await database.fetch_one("get_class", class_id=class_id) is not None
    assert ["done"] == seen_when_done
    assert "second" == await page_after(process)


async def test_a_write_that_fails_has_no_consequences(database: Database, process: Process) -> None:
    """Its error goes to the caller, its changes and its audit lines nowhere."""
    done: list[str] = []

    async def work(unit: Unit) -> None:
        await unit.transaction.fetch_one("create_class", **NEW_CLASS)
        unit.afterwards.append(lambda: done.append("done"))
        raise NotFound("on second thoughts")

    with pytest.raises(NotFound, match="on second thoughts"):
        await Writer(database, process.cache).run(work)

    assert [] == done
    page = {"published": None, "text": None, "after_sort_order": None, "after_name": None, "after_id": None}
    assert [] == await database.fetch_all("list_classes", **page, page_size=1)


async def test_a_write_that_fails_leaves_no_value_behind(database: Database, process: Process) -> None:
    """What it would have made of the page is not there: the page is read anew."""

    async def work(unit: Unit) -> None:
        kept = await unit.cache.lookup(KEY).kept()
        assert kept is not None
        unit.stale.add(KEY)
        unit.successors[KEY] = kept.succeeded_by("never came to be")
        raise NotFound("on second thoughts")

    with pytest.raises(NotFound):
        await Writer(database, process.cache).run(work)

    assert "second" == await page_after(process)


async def test_a_write_that_is_run_again_has_its_consequences_once(
    database: Database, process: Process
) -> None:
    """What the first run had left behind, before a deadlock undid it, is forgotten with it."""
    done: list[int] = []
    runs = 0

    async def work(unit: Unit) -> None:
        nonlocal runs
        runs += 1
        unit.stale.add(f"c:run:{runs}")
        unit.afterwards.append(lambda run=runs: done.append(run))  # type: ignore[misc]
        if runs == 1:
            raise DatabaseUnavailable("deadlock")

    await Writer(database, process.cache).run(work)

    assert [2] == done


async def test_a_page_is_stale_also_when_nobody_knows_the_outcome(
    database: Database, process: Process
) -> None:
    """A commit whose answer was lost may have happened: the page is read anew."""

    async def work(unit: Unit) -> None:
        unit.stale.add(KEY)
        raise DatabaseUnavailable("closed", outcome_unknown=True)

    with pytest.raises(DatabaseUnavailable):
        await Writer(database, process.cache).run(work)

    assert "second" == await page_after(process)

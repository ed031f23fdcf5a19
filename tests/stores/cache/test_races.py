"""Readers against writers: who asks after a write was finished never gets what was there before it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stores.cache.caches import Process, Source
from tests.support.properties import examples


@pytest.mark.parametrize("writer", [0, 1])
@pytest.mark.parametrize("before", ["nothing", "a tombstone", "a value that does not fit"])
async def test_a_slow_reader_does_not_store_an_old_value(
    processes: list[Process], writer: int, before: str
) -> None:
    """A value loaded before a write and stored after it would be old: it is not stored, whoever wrote."""
    reader = processes[0]
    if before == "a tombstone":
        await reader.cache.invalidate(["k"])
    elif before != "nothing":
        await reader.cache.lookup("k").value(Source("unfit").load)
    source = Source("old")
    source.hold()
    reading = asyncio.create_task(
        reader.cache.lookup("k").value(source.load, usable=lambda value: value != "unfit")
    )
    await source.reading.wait()

    source.value = "new"
    await processes[writer].cache.invalidate(["k"])
    source.release.set()

    assert "old" == await reading  # it began before the write was finished
    for process in processes:
        assert "new" == await process.cache.lookup("k").value(source.load)


@pytest.mark.parametrize("writer", [0, 1])
async def test_who_comes_after_a_write_does_not_share_a_load_from_before(
    processes: list[Process], writer: int
) -> None:
    """A load that was under way during a write serves those who came before it, not those after."""
    reader, source = processes[0], Source("old")
    source.hold()
    early = asyncio.create_task(reader.cache.lookup("k").value(source.load))
    await source.reading.wait()
    source.value = "new"
    await processes[writer].cache.invalidate(["k"])
    source.reading.clear()
    late = asyncio.create_task(reader.cache.lookup("k").value(source.load))
    await source.reading.wait()
    source.release.set()
    assert ["old", "new"] == list(await asyncio.gather(early, late))


@dataclass(frozen=True)
class Step:
    """Somebody's part in a schedule: who, in which process, and how many turns of the loop it lets pass and when."""

    is_writer: bool
    process: int
    turns_before: int
    turns_in_load: int
    turns_after_load: int


STEPS = st.builds(
    Step, st.booleans(), st.integers(0, 1), st.integers(0, 30), st.integers(0, 6), st.integers(0, 30)
)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=2, max_size=12))
async def test_no_schedule_shows_an_old_value(processes: list[Process], steps: list[Step]) -> None:
    """Whatever the order of looks, loads, fills and writes of two processes, nobody reads behind a finished write."""
    key = f"c:{os.urandom(8).hex()}"
    stored, finished = 0, 0
    wrong: list[tuple[int, int]] = []

    async def turns(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def take(step: Step) -> None:
        nonlocal stored, finished
        await turns(step.turns_before)
        cache = processes[step.process].cache
        if step.is_writer:
            stored += 1
            mine = stored
            await cache.invalidate([key])
            finished = max(finished, mine)
            return

        async def load() -> dict[str, int]:
            await turns(step.turns_in_load)
            value = stored
            await turns(step.turns_after_load)
            return {"version": value}

        must_see = finished
        value = await cache.lookup(key).value(load)
        if value["version"] < must_see:
            wrong.append((value["version"], must_see))

    await asyncio.gather(*(take(step) for step in steps))
    await asyncio.gather(*(take(Step(False, process, 0, 0, 0)) for process in (0, 1)))
    assert [] == wrong

"""Writers that leave the new value in the cache: never one that lacks what another has written."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.stores.cache.cache import Cache, Kept
from server.stores.cache.values import fresh_until_ms
from tests.stores.cache.caches import TTL_SECONDS, Process, Source
from tests.stores.cache.conftest import Clock
from tests.support.properties import examples


async def look(cache: Cache, key: str = "k") -> Kept:
    """What the cache holds; the test has put it there."""
    kept = await cache.lookup(key).kept()
    assert kept is not None
    return kept


async def test_the_next_reader_anywhere_finds_the_successor(processes: list[Process]) -> None:
    """It is a hit without a load, in every process; looking before the write counts as nothing."""
    one, other = processes
    await one.cache.lookup("k").value(Source("old").load)
    kept = await look(one.cache)
    await one.cache.invalidate(["k", "other"], {"k": kept.succeeded_by("new")})
    source = Source("not asked")
    assert ["new", "new"] == [await process.cache.lookup("k").value(source.load) for process in processes]
    assert {"hits": 1, "misses": 1, "sets": 2, "deletes": 1} == one.counts()
    assert {"hits": 1} == other.counts()


@pytest.mark.parametrize("held", [None, "tombstone"])
async def test_there_is_no_successor_of_nothing(processes: list[Process], held: str | None) -> None:
    """A key without a value, or with a tombstone, has nothing that a new value could be made of."""
    if held is not None:
        await processes[1].cache.invalidate(["k"])
    assert await processes[0].cache.lookup("k").kept() is None


@pytest.mark.parametrize("meanwhile", ["a write", "a refill"])
async def test_a_successor_of_what_is_gone_is_not_stored(processes: list[Process], meanwhile: str) -> None:
    """After another's write, or a fill by a reader who saw it, nobody finds the value that knows nothing of it."""
    one, other = processes
    await one.cache.lookup("k").value(Source("old").load)
    kept = await look(one.cache)
    await other.cache.invalidate(["k"])
    if meanwhile == "a refill":
        await other.cache.lookup("k").value(Source("theirs").load)
    await one.cache.invalidate(["k"], {"k": kept.succeeded_by("old and mine")})
    source = Source("theirs and mine")
    assert [source.value] * 2 == [await process.cache.lookup("k").value(source.load) for process in processes]


async def test_a_slow_reader_does_not_overwrite_a_successor(processes: list[Process]) -> None:
    """What was loaded before the write is not stored after it, also where the write left a value."""
    one, other = processes
    await one.cache.lookup("k").value(Source("unfit").load)
    source = Source("old")
    source.hold()
    reading = asyncio.create_task(
        other.cache.lookup("k").value(source.load, usable=lambda value: value != "unfit")
    )
    await source.reading.wait()
    kept = await look(one.cache)
    await one.cache.invalidate(["k"], {"k": kept.succeeded_by("new")})
    source.release.set()
    assert "old" == await reading  # it began before the write was finished
    assert "new" == await one.cache.lookup("k").value(Source("not asked").load)


async def test_a_successor_lives_no_longer_than_the_first_value(
    processes: list[Process], clock: Clock
) -> None:
    """A value that has been replaced again and again is loaded anew when the first one would have been."""
    cache, link = processes[0].cache, processes[0].link
    await cache.lookup("k").value(Source("first").load)
    fresh_until = fresh_until_ms(await link.execute("GET", "k"))
    for value in ("second", "third"):
        await link.execute("PEXPIRE", "k", 10 * TTL_SECONDS * 1000)
        clock.seconds += TTL_SECONDS / 3
        await cache.invalidate(["k"], {"k": (await look(cache)).succeeded_by(value)})
        assert value == (await look(cache)).value
        assert fresh_until == fresh_until_ms(await link.execute("GET", "k"))
        assert 0 < await link.execute("PTTL", "k") <= fresh_until - clock.seconds * 1000 + 1
    clock.seconds += TTL_SECONDS / 3
    source = Source("loaded anew")
    assert "third" == await cache.lookup("k").value(source.load)
    await asyncio.gather(*(flight.task for flight in cache.loads._known.values()))
    assert (source.value, 1) == ((await look(cache)).value, source.loads)


async def test_a_value_past_its_life_has_no_successor(processes: list[Process], clock: Clock) -> None:
    """What Redis should have forgotten by now is buried like any other value, and nothing has failed."""
    process = processes[0]
    await process.cache.lookup("k").value(Source("old").load)
    kept = await look(process.cache)
    clock.seconds += TTL_SECONDS
    await process.cache.invalidate(["k"], {"k": kept.succeeded_by("new")})
    assert (await process.link.execute("GET", "k")).startswith(b"T")
    assert {"misses": 1, "sets": 1, "deletes": 1} == process.counts()


async def test_what_redis_has_not_heard_of_has_no_successor(processes: list[Process]) -> None:
    """After a write that Redis missed, this process makes no value of what is there, nor stores one made before."""
    cache, link = processes[0].cache, processes[0].link
    await cache.lookup("k").value(Source("old").load)
    kept = await look(cache)
    cache._remember(["k"])
    assert await cache.lookup("k").kept() is None
    await cache.invalidate(["k"], {"k": kept.succeeded_by("without what Redis missed")})
    assert (await link.execute("GET", "k")).startswith(b"T")


@dataclass(frozen=True)
class Step:
    """Somebody's part in a schedule: who, where, which entry is written, and how many turns of the loop pass when."""

    entry: str | None
    process: int
    turns: tuple[int, int, int]


TURNS = st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(0, 30))
STEPS = st.builds(Step, st.sampled_from([None, "a", "b"]), st.integers(0, 1), TURNS)


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=2, max_size=14))
async def test_no_schedule_loses_what_was_written(processes: list[Process], steps: list[Step]) -> None:
    """Writers of two entries, one transaction at a time, and readers: nobody reads behind a finished write."""
    key = f"o:{os.urandom(8).hex()}"
    stored, finished = {"a": 0, "b": 0}, {"a": 0, "b": 0}
    lock = asyncio.Lock()  # the row that a user's transactions take one after another
    wrong: list[tuple[dict[str, int], dict[str, int]]] = []

    async def turns(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def write(step: Step, entry: str) -> None:
        cache = processes[step.process].cache
        lookup = cache.lookup(key)
        async with lock:
            await turns(step.turns[1])
            kept = await lookup.kept()
            stored[entry] = mine = stored[entry] + 1
        await turns(step.turns[2])
        successors = {} if kept is None else {key: kept.succeeded_by({**kept.value, entry: mine})}
        await cache.invalidate([key], successors)
        finished[entry] = max(finished[entry], mine)

    async def read(step: Step) -> None:
        async def load() -> dict[str, int]:
            await turns(step.turns[1])
            value = dict(stored)
            await turns(step.turns[2])
            return value

        must_see = dict(finished)
        value = await processes[step.process].cache.lookup(key).value(load)
        if any(value[entry] < must_see[entry] for entry in must_see):
            wrong.append((value, must_see))

    async def take(step: Step) -> None:
        await turns(step.turns[0])
        await (read(step) if step.entry is None else write(step, step.entry))

    await read(Step(None, 0, (0, 0, 0)))
    await asyncio.gather(*(take(step) for step in steps))
    await asyncio.gather(*(read(Step(None, process, (0, 0, 0))) for process in (0, 1)))
    assert [] == wrong

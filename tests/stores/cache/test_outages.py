"""The cache without Redis: correct data from the database, and no old value when Redis is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from server.development import EmbeddedServer
from server.stores.cache import cache as cache_module
from server.telemetry.timings import Timings, current_timings
from tests.stores.cache.caches import Process, Source, open_process
from tests.support.waiting import wait_until


@pytest.fixture
async def processes(own_redis: EmbeddedServer) -> AsyncIterator[list[Process]]:
    """Two processes over a Redis that the test may break."""
    async with open_process(own_redis.url) as one, open_process(own_redis.url) as other:
        yield [one, other]


async def refuse_writes(process: Process) -> None:
    """Make Redis refuse every write, as it does when its memory is full; reads go on."""
    await process.link.execute("CONFIG", "SET", "maxmemory", 1)


async def allow_writes(process: Process) -> None:
    """Undo `refuse_writes`."""
    await process.link.execute("CONFIG", "SET", "maxmemory", 0)


async def test_without_redis_every_reader_is_served(
    own_redis: EmbeddedServer, processes: list[Process]
) -> None:
    """With Redis killed, reads bypass it and writes go through; each failed operation counts once, as an error."""
    process, source = processes[0], Source()
    own_redis.process.kill()
    own_redis.process.wait()
    timings = Timings()
    current_timings.set(timings)

    assert "first" == await process.cache.lookup("k").value(source.load)
    source.value = "second"
    await process.cache.invalidate(["k", "other"])
    assert "second" == await process.cache.lookup("k").value(source.load)

    assert "BYPASS" == timings.cache_outcome
    assert {"errors": 4} == process.counts()
    assert process.metrics.cache_totals().last_error is not None


async def test_an_invalidation_that_failed_is_made_when_redis_is_back(processes: list[Process]) -> None:
    """Until Redis knows of a write this process uses the key no more; afterwards no process gets the old value."""
    writer, other = processes
    source = Source("old")
    await writer.cache.lookup("k").value(source.load)
    await refuse_writes(writer)
    source.value = "new"
    await writer.cache.invalidate(["k"])

    for _ in range(2):
        assert "new" == await writer.cache.lookup("k").value(source.load)
    assert 0 == writer.counts().get("hits", 0)

    await allow_writes(writer)
    await wait_until(lambda: not writer.cache._pending, "Redis hears of the write")
    assert "new" == await other.cache.lookup("k").value(source.load)
    assert "new" == await writer.cache.lookup("k").value(source.load)
    assert 1 == writer.counts()["hits"], "the key is used again"


async def test_an_invalidation_that_was_cancelled_is_made_all_the_same(processes: list[Process]) -> None:
    """A client that hangs up after the commit does not keep the old value alive: the key is tried again."""
    writer, other = processes
    source = Source("old")
    await writer.cache.lookup("k").value(source.load)
    source.value = "new"
    invalidating = asyncio.create_task(writer.cache.invalidate(["k"]))
    await asyncio.sleep(0)  # it has begun, and nothing is on its way to Redis yet
    invalidating.cancel()
    assert asyncio.CancelledError is type((await asyncio.gather(invalidating, return_exceptions=True))[0])
    assert "new" == await writer.cache.lookup("k").value(source.load)
    await wait_until(lambda: not writer.cache._pending, "Redis hears of the write")
    assert "new" == await other.cache.lookup("k").value(source.load)


async def test_a_load_from_before_a_failed_invalidation_is_not_stored(processes: list[Process]) -> None:
    """A reader that was loading when an invalidation failed does not fill the key behind its back."""
    process, source = processes[0], Source("old")
    source.hold()
    reading = asyncio.create_task(process.cache.lookup("k").value(source.load))
    await source.reading.wait()
    await refuse_writes(process)
    source.value = "new"
    await process.cache.invalidate(["k"])
    await allow_writes(process)
    source.release.set()
    await reading
    assert "new" == await process.cache.lookup("k").value(source.load)
    await wait_until(lambda: not process.cache._pending, "Redis hears of the write")
    assert "new" == await processes[1].cache.lookup("k").value(source.load)


async def test_a_reader_that_can_not_ask_does_not_share_a_load_that_has_begun(
    own_redis: EmbeddedServer, processes: list[Process]
) -> None:
    """Without Redis nobody knows what other processes wrote: who comes now gets what was loaded from now on."""
    process, source = processes[0], Source("old")
    own_redis.process.kill()
    own_redis.process.wait()
    source.hold()
    early = asyncio.create_task(process.cache.lookup("k").value(source.load))
    await source.reading.wait()
    source.value = "new"  # by another process
    late = [asyncio.create_task(process.cache.lookup("k").value(source.load)) for _ in range(10)]
    while process.counts() != {"errors": 11}:  # noqa: ASYNC110 - it takes a fraction of a millisecond
        await asyncio.sleep(0)
    source.release.set()
    assert ["old", *["new"] * 10] == await asyncio.gather(early, *late)
    assert 2 == source.loads, "and the ten share theirs"


async def test_a_long_outage_costs_no_more_with_every_write(
    own_redis: EmbeddedServer, processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for Redis is not sent again with each write, and there is a bound to how much may wait."""
    monkeypatch.setattr(cache_module, "_MOST_PENDING", 50)
    process = processes[0]
    own_redis.process.kill()
    own_redis.process.wait()
    for number in range(100):
        await process.cache.invalidate([f"k{number}"])
    assert {"errors": 100} == process.counts()
    assert 50 == len(process.cache._pending)


async def test_what_waited_is_sent_a_part_at_a_time(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage Redis is not sent ten thousand commands at once, in front of those that somebody waits for."""
    monkeypatch.setattr(cache_module, "_RETRIED_AT_ONCE", 10)
    cache, sent = processes[0].cache, list[int]()
    invalidate = cache._invalidate

    async def note(keys: Iterable[str]) -> list[str]:
        names = list(keys)
        sent.append(len(names))
        return await invalidate(names)

    monkeypatch.setattr(cache, "_invalidate", note)
    cache._remember(f"k{number}" for number in range(25))
    await wait_until(lambda: not cache._pending, "Redis hears of the writes")
    assert [10, 10, 5] == sent


async def test_beyond_the_bound_a_redis_that_is_there_still_hears(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound limits what is remembered, not what is sent."""
    monkeypatch.setattr(cache_module, "_MOST_PENDING", 0)
    source = Source("old")
    await processes[0].cache.lookup("k").value(source.load)
    source.value = "new"
    await processes[0].cache.invalidate(["k"])
    assert "new" == await processes[0].cache.lookup("k").value(source.load)


async def test_closing_ends_what_waits(own_redis: EmbeddedServer) -> None:
    """A process can stop while Redis is away and a load hangs."""
    async with open_process(own_redis.url) as process:
        source = Source()
        source.hold()
        reading = asyncio.create_task(process.cache.lookup("k").value(source.load))
        await source.reading.wait()
        own_redis.process.kill()
        own_redis.process.wait()
        await process.cache.invalidate(["other"])
    outcome = (await asyncio.gather(reading, return_exceptions=True))[0]
    assert asyncio.CancelledError is type(outcome)

"""The cache: what it keeps, for how long, what it counts, and how often it loads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import redis

from server.development import EmbeddedServer
from server.telemetry.timings import Timings, current_timings
from tests.stores.cache.caches import TTL_SECONDS, Process, Source, open_process


@pytest.fixture
async def process(shared_redis: EmbeddedServer) -> AsyncIterator[Process]:
    """A process over the session's Redis, emptied."""
    with closing(redis.Redis.from_url(shared_redis.url)) as client:
        client.flushall()
    async with open_process(shared_redis.url) as process:
        yield process


async def test_a_value_is_loaded_once_and_then_found(process: Process) -> None:
    """The first reader loads and stores, the next ones find: one miss, one set, a hit each."""
    source = Source({"a": [1, "é", None]})
    read = [await process.cache.lookup("k").value(source.load) for _ in range(3)]
    assert [source.value] * 3 == read
    assert 1 == source.loads
    assert {"hits": 2, "misses": 1, "sets": 1} == process.counts()


async def test_nothing_is_not_stored(process: Process) -> None:
    """A loader that finds nothing is asked again by the next reader, who may find something."""
    source = Source(None)
    assert [None, None] == [await process.cache.lookup("k").value(source.load) for _ in range(2)]
    assert {"misses": 2} == process.counts()
    assert 0 == await process.link.execute("EXISTS", "k")


@pytest.mark.parametrize("value", [0, False, "", [], {}])
async def test_an_empty_value_is_a_value(process: Process, value: object) -> None:
    """What is false in Python is stored and found like anything else."""
    source = Source(value)
    assert [value, value] == [await process.cache.lookup("k").value(source.load) for _ in range(2)]
    assert 1 == source.loads


async def test_every_key_has_a_time_to_live(process: Process) -> None:
    """Values live as long as the setting says, the traces of invalidations a minute; nothing lives forever."""
    await process.cache.lookup("value").value(Source().load)
    await process.cache.invalidate(["tombstone"])
    assert (TTL_SECONDS - 5) * 1000 < await process.link.execute("PTTL", "value") <= TTL_SECONDS * 1000
    assert 55_000 < await process.link.execute("PTTL", "tombstone") <= 60_000


async def test_an_invalidated_value_is_loaded_anew(process: Process) -> None:
    """After an invalidation the next reader gets the new value, which is then found again."""
    source = Source()
    await process.cache.lookup("k").value(source.load)
    source.value = "second"
    await process.cache.invalidate(["k", "never stored"])
    assert ["second", "second"] == [await process.cache.lookup("k").value(source.load) for _ in range(2)]
    assert {"hits": 1, "misses": 2, "sets": 2, "deletes": 2} == process.counts()


async def test_invalidating_nothing_does_nothing(process: Process) -> None:
    """No key is no operation."""
    await process.cache.invalidate([])
    assert {} == process.counts()


async def test_readers_at_once_share_one_load(process: Process) -> None:
    """Twenty who miss the same key cause one load and one set; each counts its miss."""
    source = Source()
    source.hold()
    readers = [asyncio.create_task(process.cache.lookup("k").value(source.load)) for _ in range(20)]
    await source.reading.wait()
    while process.counts().get("misses") != 20:  # noqa: ASYNC110 - it takes a fraction of a millisecond
        await asyncio.sleep(0)
    source.release.set()
    assert ["first"] * 20 == await asyncio.gather(*readers)
    assert 1 == source.loads
    assert {"misses": 20, "sets": 1} == process.counts()


async def test_the_first_caller_may_go(process: Process) -> None:
    """Cancelling the caller that began the load fails nobody else, and the value is still stored."""
    source = Source()
    source.hold()
    readers = [asyncio.create_task(process.cache.lookup("k").value(source.load)) for _ in range(3)]
    await source.reading.wait()
    readers[0].cancel()
    source.release.set()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert [asyncio.CancelledError, str, str] == [type(outcome) for outcome in outcomes]
    assert (1, "first") == (source.loads, await process.cache.lookup("k").value(source.load))


async def test_everybody_may_go(process: Process) -> None:
    """When all callers are cancelled the load ends by itself, and an error of it disturbs nobody."""

    async def fail() -> None:
        await source.load()
        raise LookupError

    source = Source()
    source.hold()
    reader = asyncio.create_task(process.cache.lookup("k").value(fail))
    await source.reading.wait()
    reader.cancel()
    assert [asyncio.CancelledError] == [
        type(outcome) for outcome in await asyncio.gather(reader, return_exceptions=True)
    ]
    source.release.set()
    while process.cache.loads:  # noqa: ASYNC110 - it takes a fraction of a millisecond
        await asyncio.sleep(0)


async def test_a_failed_load_reaches_all_its_callers_and_is_not_kept(process: Process) -> None:
    """An error of the loader is everybody's error who waited for it; the next reader tries again."""

    async def fail() -> None:
        await source.load()
        raise LookupError("no such table")

    source = Source()
    outcomes = await asyncio.gather(
        *(process.cache.lookup("k").value(fail) for _ in range(5)), return_exceptions=True
    )
    assert [LookupError] * 5 == [type(outcome) for outcome in outcomes]
    assert "first" == await process.cache.lookup("k").value(source.load)
    assert {"misses": 6, "sets": 1} == process.counts()


async def test_a_value_that_no_longer_fits_is_replaced(process: Process) -> None:
    """A cached value that its reader can not use is a miss; the one loaded instead takes its place."""
    old, new = Source({"fingerprint": 1}), Source({"fingerprint": 2})
    await process.cache.lookup("k").value(old.load)

    def usable(value: dict[str, int]) -> bool:
        return value["fingerprint"] == 2

    for _ in range(2):
        assert new.value == await process.cache.lookup("k").value(new.load, usable=usable)
    assert 1 == new.loads
    assert {"hits": 1, "misses": 2, "sets": 2} == process.counts()


async def test_who_needs_another_variant_does_not_get_the_first_ones(process: Process) -> None:
    """Two readers of one key with different fingerprints, at the same time, each get what fits them."""

    def read(source: Source) -> asyncio.Task[object]:
        lookup = process.cache.lookup("k")
        return asyncio.create_task(lookup.value(source.load, usable=lambda value: value == source.value))

    first, second = Source({"fingerprint": 1}), Source({"fingerprint": 2})
    first.hold()
    readers = [read(first), read(second)]
    await first.reading.wait()
    first.release.set()
    assert [first.value, second.value] == await asyncio.gather(*readers)


@pytest.mark.parametrize("junk", [b"", b"V", b"V12345678", b"V12345678{", b"{}", b"\xff\xfe"])
async def test_what_the_cache_did_not_write_is_a_miss(process: Process, junk: bytes) -> None:
    """A value that can not be read is loaded anew and replaced, not an error."""
    await process.link.execute("SET", "k", junk)
    source = Source()
    assert ["first", "first"] == [await process.cache.lookup("k").value(source.load) for _ in range(2)]
    assert 1 == source.loads


async def test_a_key_of_another_type_is_bypassed(process: Process) -> None:
    """A key that holds no string is an error of the cache, not of the reader."""
    await process.link.execute("RPUSH", "k", "entry")
    assert "first" == await process.cache.lookup("k").value(Source().load)
    assert {"errors": 1} == process.counts()
    assert "WRONGTYPE" == process.metrics.cache_totals().last_error


async def test_a_request_is_told_the_worst_of_its_outcomes(process: Process) -> None:
    """A hit alone is a HIT; together with a miss it is a MISS."""
    outcomes = []
    for keys in (["a"], ["a"], ["a", "b"], ["a", "b"]):
        timings = Timings()
        current_timings.set(timings)
        for key in keys:
            await process.cache.lookup(key).value(Source().load)
        outcomes.append(timings.cache_outcome)
    assert ["MISS", "HIT", "MISS", "HIT"] == outcomes

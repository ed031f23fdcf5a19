"""Several keys in one command, the short way to what has not changed, and what is not decoded twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.development import EmbeddedServer
from server.stores.cache.cache import CacheKeys, Lookups, Seen
from server.stores.cache.values import DecodedValues, encode
from tests.stores.cache.caches import Process, open_process
from tests.stores.cache.conftest import Clock

KEYS = CacheKeys("short", "long")


@pytest.fixture
async def process(shared_redis: EmbeddedServer, clock: Clock) -> AsyncIterator[Process]:
    """A process whose cache holds two values, fresh for 10 and for 60 seconds from now."""
    del clock
    async with open_process(shared_redis.url) as process:
        await process.link.execute("SET", "short", encode("s", fresh_ms=10_000))
        await process.link.execute("SET", "long", encode("l", fresh_ms=60_000))
        yield process


async def values_of(lookups: Lookups) -> list[object]:
    """What the cache holds."""
    return [kept and kept.value for one in lookups.each() for kept in [await one.kept()]]


async def seen_by(process: Process) -> Seen:
    """The versions of both keys."""
    lookups = process.cache.lookups(KEYS)
    assert await values_of(lookups) == ["s", "l"]
    seen = lookups.seen()
    assert seen is not None
    return seen


async def asked_again(process: Process, seen: Seen) -> Lookups:
    """Lookups for somebody who has seen these versions, to which Redis has answered."""
    lookups = process.cache.lookups(KEYS, seen)
    await lookups.wait()
    return lookups


async def test_what_was_made_of_several_values_is_fresh_as_long_as_all_of_them(
    process: Process, clock: Clock
) -> None:
    """Up to the first one's end the versions are enough; from then on the values are asked for, and load anew."""
    seen = await seen_by(process)
    assert round(clock.seconds * 1000) + 10_000 == pytest.approx(seen.fresh_until_ms, abs=1)
    clock.seconds += 9.9
    assert (await asked_again(process, seen)).are_still(seen)
    assert {"hits": 2} == process.counts()
    clock.seconds += 0.2
    lookups = await asked_again(process, seen)
    assert not lookups.are_still(seen)
    assert await values_of(lookups) == ["s", "l"]
    assert {"hits": 2} == process.counts()


async def test_values_that_have_not_changed_are_not_sent(process: Process) -> None:
    """Whoever has seen the versions is sent seventeen bytes for each value; whoever has not, the values."""
    seen = await seen_by(process)
    await process.link.execute("CONFIG", "RESETSTAT")
    assert (await asked_again(process, seen)).are_still(seen)
    used = str(await process.link.execute("INFO", "commandstats"))
    assert "cmdstat_getrange:calls=2" in used
    assert "cmdstat_mget" not in used


async def test_of_several_values_only_those_that_have_changed_are_sent_again(process: Process) -> None:
    """Whoever has seen the versions is sent the one value that is new; the versions that are seen then are enough."""
    seen = await seen_by(process)
    await process.link.execute("SET", "long", encode("longer", fresh_ms=60_000))
    await process.link.execute("CONFIG", "RESETSTAT")
    lookups = await asked_again(process, seen)
    assert await values_of(lookups) == ["s", "longer"]
    used = str(await process.link.execute("INFO", "commandstats"))
    assert "cmdstat_getrange:calls=2" in used
    assert "cmdstat_get:calls=1" in used
    assert "cmdstat_mget" not in used
    now_seen = lookups.seen()
    assert now_seen is not None
    assert (await asked_again(process, now_seen)).are_still(now_seen)


async def test_another_version_of_one_value_is_another_answer(process: Process) -> None:
    """The same text stored anew may be made of something else; and nothing is not a version."""
    seen = await seen_by(process)
    await process.link.execute("SET", "long", encode("l", fresh_ms=60_000))
    lookups = await asked_again(process, seen)
    assert not lookups.are_still(seen)
    assert await values_of(lookups) == ["s", "l"]
    assert lookups.seen() not in {None, seen}
    await process.cache.invalidate(["long"])
    lookups = await asked_again(process, seen)
    assert not lookups.are_still(seen)
    assert await values_of(lookups) == ["s", None]
    assert lookups.seen() is None


async def test_a_large_value_is_sent_once(process: Process) -> None:
    """Of a value that is decoded here only the version and the time are sent; a new one, or none, is found at once."""
    cache, large = process.cache, ["x" * 20_000]
    await process.link.execute("SET", "large", encode(large, fresh_ms=60_000))

    async def read(*keys: str) -> list[object]:
        return [kept and kept.value for one in cache.lookup_each(*keys) for kept in [await one.kept()]]

    assert [large, "s"] == await read("large", "short")
    await process.link.execute("CONFIG", "RESETSTAT")
    assert [large] == await read("large")
    assert ["s", large] == await read("short", "large")
    used = str(await process.link.execute("INFO", "commandstats"))
    assert "cmdstat_getrange:calls=2" in used
    assert "cmdstat_get:calls=1" in used  # of the short one
    assert "cmdstat_mget" not in used
    await process.link.execute("SET", "large", encode([*large, "y"], fresh_ms=60_000))
    assert [[*large, "y"]] == await read("large")
    await cache.invalidate(["large"])
    assert [None] == await read("large")
    await process.link.execute("DEL", "large")
    assert [None] == await read("large")


async def test_the_successor_of_a_large_value_takes_its_place(process: Process) -> None:
    """A writer that was sent the version only replaces that version, and no other, with the same time of its own."""
    cache, large = process.cache, ["x" * 20_000]
    await process.link.execute("SET", "large", encode(large, fresh_ms=60_000))
    assert await cache.lookup("large").kept() is not None
    kept, late = await cache.lookup("large").kept(), await cache.lookup("large").kept()
    assert kept is not None
    assert late is not None
    await cache.invalidate(["large"], {"large": kept.succeeded_by(["next"])})
    again = await cache.lookup("large").kept()
    assert again is not None
    assert ["next"] == again.value
    await cache.invalidate(["large"], {"large": late.succeeded_by(["too late"])})
    assert await cache.lookup("large").kept() is None


async def test_an_answer_that_has_not_come_or_never_will_says_nothing(process: Process) -> None:
    """Before Redis has answered, and after it was lost, the values have to be asked for."""
    seen = await seen_by(process)
    lookups = process.cache.lookups(KEYS, seen)
    assert not lookups.are_still(seen)
    await process.link.close()
    await lookups.wait()
    assert not lookups.are_still(seen)
    assert [None, None] == await values_of(lookups)


def test_decoded_values_are_bounded_by_what_they_hold_now() -> None:
    """A value that is replaced again and again takes the place of itself, and of no other."""
    decoded = DecodedValues(max_bytes=100)
    decoded.remember("still", b"1", 50, "kept")
    for version in range(10):
        decoded.remember("busy", b"%d" % version, 50, version)
    assert ("kept", 9) == (decoded.find("still", b"1"), decoded.find("busy", b"9"))
    assert decoded.find("busy", b"8") is None
    decoded.remember("one more", b"1", 1, "new")
    assert (None, 9, "new") == (
        decoded.find("still", b"1"), decoded.find("busy", b"9"), decoded.find("one more", b"1"),
    )  # fmt: skip

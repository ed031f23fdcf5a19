"""Several keys in one command, the short way to what has not changed, and what is not decoded twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.development import EmbeddedServer
from server.stores.cache.cache import CacheKeys, Lookups
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


async def answered(process: Process) -> Lookups:
    """Lookups of both keys to which Redis has answered."""
    lookups = process.cache.lookups(KEYS)
    assert ["s", "l"] == [kept.value for one in lookups.each() if (kept := await one.kept()) is not None]
    return lookups


async def test_what_was_made_of_several_values_is_fresh_as_long_as_all_of_them(
    process: Process, clock: Clock
) -> None:
    """Up to the first one's end the versions are enough; from then on the lookups have to be asked, and load anew."""
    seen = (await answered(process)).seen()
    assert seen is not None
    assert round(clock.seconds * 1000) + 10_000 == pytest.approx(seen.fresh_until_ms, abs=1)
    clock.seconds += 9.9
    assert (await answered(process)).are_still(seen)
    assert {"hits": 2} == process.counts()
    clock.seconds += 0.2
    assert not (await answered(process)).are_still(seen)
    assert {"hits": 2} == process.counts()


async def test_another_version_of_one_value_is_another_answer(process: Process) -> None:
    """The same text stored anew may be made of something else; and nothing is not a version."""
    seen = (await answered(process)).seen()
    assert seen is not None
    await process.link.execute("SET", "long", encode("l", fresh_ms=60_000))
    lookups = await answered(process)
    assert not lookups.are_still(seen)
    assert lookups.seen() not in {None, seen}
    await process.cache.invalidate(["long"])
    lookups = process.cache.lookups(KEYS)
    assert await lookups.each()[1].kept() is None
    assert lookups.seen() is None
    assert not lookups.are_still(seen)


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

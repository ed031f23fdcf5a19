"""lua/replace_cache.lua: a writer's new value takes the place of the one that it saw, or a tombstone does."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis

from server.development import EmbeddedServer
from server.stores.redis.scripts import load_script

OLD, NEW, OTHER = b"V" + b"a" * 8 + b"1", b"V" + b"b" * 8 + b"2", b"V" + b"c" * 8 + b"3"
TOMBSTONE, MINE = b"T" + b"d" * 8, b"T" + b"e" * 8


@pytest.mark.parametrize(
    ("stored", "expected"), [(OLD, 1), (OTHER, 0), (TOMBSTONE, 0), (None, 0), (OLD[:8], 0), (b"", 0)]
)
def test_a_successor_needs_the_value_that_was_seen(
    shared_redis: EmbeddedServer, stored: bytes | None, expected: int
) -> None:
    """Whatever else is there now, a tombstone takes its place; each with its own time to live."""
    with closing(redis.Redis.from_url(shared_redis.url)) as client:
        client.delete("k")
        if stored is not None:
            client.set("k", stored, px=60_000)
        source = load_script("replace_cache").source.decode()
        assert expected == client.eval(source, 1, "k", OLD[:9], NEW, 5000, MINE, 20_000)
        assert (NEW if expected else MINE) == client.get("k")
        low, high = (4000, 5000) if expected else (19_000, 20_000)
        assert low < client.pttl("k") <= high
        client.delete("k")

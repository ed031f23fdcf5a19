"""lua/fill_cache.lua: a reader's value is stored only where nothing happened since the reader looked."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis

from server.development import EmbeddedServer
from server.stores.redis.scripts import load_script

OLD, NEW = b"V" + b"a" * 8 + b"1", b"V" + b"b" * 8 + b"2"
TOMBSTONE = b"T" + b"c" * 8


@pytest.mark.parametrize(
    ("stored", "seen", "expected"),
    [
        (None, b"", 1),
        (None, TOMBSTONE, 0),
        (None, OLD[:9], 0),
        (TOMBSTONE, TOMBSTONE, 1),
        (TOMBSTONE, b"", 0),
        (TOMBSTONE, b"T" + b"d" * 8, 0),
        (OLD, OLD[:9], 1),
        (OLD, b"", 0),
        (OLD, NEW[:9], 0),
        (b"short", b"short", 1),
    ],
)
def test_a_fill_needs_the_key_as_it_was_seen(
    shared_redis: EmbeddedServer, stored: bytes | None, seen: bytes, expected: int
) -> None:
    """The value is stored, with its time to live, exactly if the key still begins with what the reader saw."""
    with closing(redis.Redis.from_url(shared_redis.url)) as client:
        client.delete("k")
        if stored is not None:
            client.set("k", stored, px=60_000)
        assert expected == client.eval(load_script("fill_cache").source.decode(), 1, "k", seen, NEW, 5000)
        assert (NEW if expected else stored) == client.get("k")
        if expected:
            assert 4000 < client.pttl("k") <= 5000
        client.delete("k")

"""The list of blocked subjects: for operators to see, in step with what holds."""

from __future__ import annotations

import time

from server.ratelimit.blocks import BLOCKS_KEY, Blocks
from server.ratelimit.policies import block_key
from server.stores.redis.link import RedisLink


async def test_blocks_are_listed_with_their_ends(link: RedisLink) -> None:
    """Those that end first come first, each once, however often it was set; the list lives no longer than they do."""
    blocks = Blocks(link)
    await link.execute("UNLINK", BLOCKS_KEY)
    assert [] == await blocks.first(10)
    for subject, seconds in (("ip:192.0.2.1", 600), ("user:é", 60), ("ip:192.0.2.1", 120)):
        await blocks.set(subject, duration_ms=seconds * 1000)
    listed = await blocks.first(10)
    assert ["user:é", "ip:192.0.2.1"] == [block.subject for block in listed]
    for block, seconds in zip(listed, (60, 120), strict=True):
        assert seconds - 30 < block.ends_at - time.time() <= seconds
    assert ["user:é"] == [block.subject for block in await blocks.first(1)]
    assert 60_000 < await link.execute("PTTL", BLOCKS_KEY) <= 602_000


async def test_what_is_listed_is_blocked(link: RedisLink) -> None:
    """A block that was ended is on the list no more, whoever has ended it."""
    blocks = Blocks(link)
    await blocks.set("ip:192.0.2.9", duration_ms=60_000)
    await link.execute("UNLINK", block_key("ip:192.0.2.9"))
    assert "ip:192.0.2.9" not in [block.subject for block in await blocks.first(1000)]
    assert await blocks.left_ms("ip:192.0.2.9") is None

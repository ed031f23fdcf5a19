"""What a limiter reports about its server at the start."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from server.development import EmbeddedServer
from server.ratelimit.fallback import report_what_may_be_lost
from server.ratelimit.memory import MemoryLink
from tests.support.redis_servers import open_link


@pytest.mark.parametrize(
    ("save", "append_only", "reported"),
    [("", "no", True), ("3600 1", "no", False), ("", "yes", False)],
)
async def test_point_27_a_server_that_keeps_nothing_is_reported(
    own_redis: EmbeddedServer, save: str, append_only: str, reported: bool
) -> None:
    """Without snapshots and without a log of writes, a restart forgets what was counted."""
    async with open_link(own_redis.url) as link:
        await link.execute("CONFIG", "SET", "save", save)
        await link.execute("CONFIG", "SET", "appendonly", append_only)
        with capture_logs() as logs:
            await report_what_may_be_lost(link)
    assert reported == ("rate_limit.not_persistent" in [line["event"] for line in logs])


async def test_point_27_eviction_is_found_where_config_is_refused(own_redis: EmbeddedServer) -> None:
    """A managed server refuses CONFIG; its INFO says what it may evict."""
    async with open_link(own_redis.url) as admin:
        await admin.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await admin.execute("ACL", "SETUSER", "tenant", "on", ">secret", "~*", "+@all", "-config")
    async with open_link(f"redis://tenant:secret@127.0.0.1:{own_redis.port}/0") as link:
        with capture_logs() as logs:
            await report_what_may_be_lost(link)
    assert [("rate_limit.may_be_evicted", "allkeys-lru")] == [
        (line["event"], line["maxmemory_policy"]) for line in logs
    ]


async def test_point_27_memory_has_nothing_to_report() -> None:
    """The store in memory is neither evicted nor expected to be kept."""
    with capture_logs() as logs:
        await report_what_may_be_lost(MemoryLink())
    assert [] == logs

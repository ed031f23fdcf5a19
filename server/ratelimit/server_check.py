"""What a limiter's server may lose: looked at once, at the start."""

from __future__ import annotations

import asyncio

from ..stores.redis.events import get_logger
from ..stores.redis.link import Link, RedisReplyError, RedisUnavailable

log = get_logger(__name__)


async def report_what_may_be_lost(link: Link) -> None:
    """Log if the server may evict keys of the limiter, as every eviction policy but one can, or keeps nothing on disk.

    On a Cluster one of the masters is asked. Managed servers often refuse CONFIG; their eviction policy is in INFO.
    """
    try:
        policy, save, append_only = await asyncio.gather(
            *(_setting(link, name) for name in ("maxmemory-policy", "save", "appendonly"))
        )
    except RedisUnavailable as error:
        log.info("rate_limit.eviction_unknown", error=str(error))
        return
    except RedisReplyError as error:
        policy, save, append_only = await _eviction_by_info(link), None, None
        if policy is None:
            log.info("rate_limit.eviction_unknown", error=str(error))
    if policy not in {None, "noeviction"}:
        log.warning("rate_limit.may_be_evicted", maxmemory_policy=policy)
    if save == "" and append_only == "no":
        log.info("rate_limit.not_persistent", save=save, appendonly=append_only)


async def _setting(link: Link, name: str) -> str | None:
    reply = await link.execute("CONFIG", "GET", name)
    return reply[1].decode() if reply else None


async def _eviction_by_info(link: Link) -> str | None:
    try:
        lines = (await link.execute("INFO", "memory")).decode().splitlines()
    except (RedisUnavailable, RedisReplyError):
        return None
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return found.get("maxmemory_policy")

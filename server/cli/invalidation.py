"""What a command has changed beside the running service, its readers see at once: through the service's Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from server.settings import Settings
from server.stores.cache.values import invalidate
from server.stores.redis.link import RedisLink

# A command may wait longer than a request.
_DEADLINE_MS = 2000


def tell_readers(settings: Settings, keys: Collection[str]) -> bool:
    """Make cached pages unusable for every worker, after the commit that changed what they show.

    Returns:
        Whether Redis received all of it. If not, what is cached is bounded by its time to live.
    """
    return not keys or asyncio.run(_invalidate(settings, keys))


async def _invalidate(settings: Settings, keys: Collection[str]) -> bool:
    link = RedisLink(
        settings.redis_url,
        deadline_ms=_DEADLINE_MS,
        connect_timeout_ms=settings.redis_connect_timeout_ms,
        verify_tls=settings.redis_verify_tls,
    )
    await link.start()
    try:
        return not (await invalidate(link, keys, deadline_ms=_DEADLINE_MS)).failures
    finally:
        await link.close()

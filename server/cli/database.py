"""How the commands reach the database, what they print where that fails, and how readers see at once what they changed.

What a command has changed beside the running service is invalidated through the service's Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case

from server.errors import CommandError, first_line
from server.settings import Settings

CONNECT_SECONDS = 10
# Redis may take longer for a command than for a request.
_REDIS_DEADLINE_MS = 2000


@contextlib.contextmanager
def connected(url: str, *, failed: str, error: type[CommandError] = CommandError) -> Iterator[Connection]:
    """A connection to the database, which is closed at the end.

    Args:
        url: the database.
        failed: what has not happened if the database reports an error, as the beginning of a sentence.
        error: what is raised then.

    Raises:
        CommandError: `error`, with the first line of what the database reported.
    """
    try:
        with contextlib.closing(psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)) as connection:
            yield connection
    except psycopg2.Error as reported:
        raise error(f"{failed}: {first_line(reported)}") from None


def tell_readers(settings: Settings, keys: Collection[str]) -> bool:
    """Make cached pages unusable for every worker, after the commit that changed what they show.

    Returns:
        Whether Redis received all of it. If not, what is cached is bounded by its time to live.
    """
    return not keys or asyncio.run(_invalidate(settings, keys))


async def _invalidate(settings: Settings, keys: Collection[str]) -> bool:
    from server.stores.cache.values import invalidate  # noqa: PLC0415 - most commands need no Redis
    from server.stores.redis.link import RedisLink  # noqa: PLC0415

    link = RedisLink(
        settings.redis_url,
        deadline_ms=_REDIS_DEADLINE_MS,
        connect_timeout_ms=settings.redis_connect_timeout_ms,
        verify_tls=settings.redis_verify_tls,
    )
    await link.start()
    try:
        return not (await invalidate(link, keys, deadline_ms=_REDIS_DEADLINE_MS)).failures
    finally:
        await link.close()

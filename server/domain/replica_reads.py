"""Reads that may be stale, from a replica where there is one.

What an administrator has changed is never stale to an administrator: a change is noted in Redis for as long as it could
be missing on the replica, and meanwhile everything is read from the primary. Where Redis can't say, too. What may be
stale are the figures that students' own work changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

from server.errors import NotFound
from server.stores.postgres.database import Database, DatabaseUnavailable
from server.stores.postgres.replica import Replica
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable

Result = TypeVar("Result")

_CHANGED: Final = "replica:changed"
# The read was in the way of what the replica had to replay: nothing is wrong with it.
_CONFLICT: Final = "serialization"


class ReplicaReads:
    """Decides which database answers a read that may be stale.

    Args:
        primary: answers whatever the replica does not.
        replica: None where there is none.
        redis: where changes are noted, for every worker to see.
    """

    def __init__(self, primary: Database, replica: Replica | None, redis: RedisLink) -> None:
        self._primary = primary
        self._replica = replica
        self._redis = redis
        self._changed_until = 0.0

    async def read(self, work: Callable[[Database], Awaitable[Result]]) -> Result:
        """Read from the replica if it is usable, else from the primary.

        A replica that fails is not asked again for some seconds. What it does not have yet, the primary may have.

        Args:
            work: reads from the database that it is given; may run twice.
        """
        replica = self._replica
        if replica is not None and replica.is_usable and not await self._has_changed():
            try:
                return await work(replica.database)
            except DatabaseUnavailable as error:
                if error.reason != _CONFLICT:
                    replica.lose(error.reason)
            except NotFound:
                pass
        return await work(self._primary)

    async def note_change(self) -> None:
        """Read from the primary until the replica has what an administrator has just changed."""
        if self._replica is None:
            return
        seconds = self._replica.visible_after_seconds
        self._changed_until = monotonic() + seconds
        try:
            await self._redis.execute("SET", _CHANGED, 1, "PX", int(seconds * 1000))
        except (RedisUnavailable, RedisReplyError):
            return  # those who ask Redis meanwhile get no answer either

    async def _has_changed(self) -> bool:
        if monotonic() < self._changed_until:
            return True
        try:
            return bool(await self._redis.execute("EXISTS", _CHANGED))
        except (RedisUnavailable, RedisReplyError):
            return True

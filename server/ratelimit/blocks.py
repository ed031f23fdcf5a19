"""Blocks: for a time, everything of a subject is refused, under every policy.

The block itself is a key of the subject's, which a decision looks at in the same call. Beside it there is a list of the
blocked subjects for operators to see. The list is never decided by: a subject on it counts as blocked only while it has
its key.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from time import time
from typing import Final

from ..stores.redis.link import Link
from ..stores.redis.scripts import load_script
from .policies import block_key

BLOCKS_KEY: Final = b"r:blocks"
_MOST_LISTED: Final = 1000  # further blocks are in force without being listed
_LISTED: Final = 1  # the list has the form of the overrides, where a number is a limit


@dataclass(frozen=True, slots=True)
class Block:
    """A subject of which everything is refused.

    Args:
        subject: in the form in which it is counted.
        ends_at: seconds since 1970, by this process's clock.
    """

    subject: str
    ends_at: float


class Blocks:
    """The blocked subjects, in Redis.

    Args:
        link: to Redis.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    async def set(self, subject: str, *, duration_ms: int) -> None:
        """Block a subject, or change when its block ends.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        await self._link.execute("SET", block_key(subject), b"1", "PX", duration_ms)
        await self._link.run_script(
            load_script("write_override"),
            [BLOCKS_KEY],
            [
                secrets.token_hex(8),
                _MOST_LISTED,
                _LISTED,
                duration_ms,
                subject.encode(errors="surrogatepass"),
            ],
        )

    async def left_ms(self, subject: str) -> int | None:
        """Return the milliseconds until the block of a subject ends; None if it is not blocked.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        left: int = await self._link.execute("PTTL", block_key(subject))
        return left if left > 0 else None

    async def first(self, count: int) -> list[Block]:
        """Return the blocks that are in force, those first that end first.

        Args:
            count: at most so many.

        Raises:
            RedisUnavailable: Redis does not answer.
            RedisReplyError: Redis holds something else under the key of the list.
        """
        _, *values = await self._link.run_script(load_script("read_overrides"), [BLOCKS_KEY], [])
        listed = sorted(zip(values[2::3], values[::3], strict=True))
        blocks: list[Block] = []
        for _, field in listed:
            subject = field.decode(errors="surrogatepass")
            left_ms = await self.left_ms(subject)
            if left_ms is not None:
                blocks.append(Block(subject, time() + left_ms / 1000))
            if len(blocks) == count:
                break
        return blocks
